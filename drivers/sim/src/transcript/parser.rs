//! Reads transcripts.

use cmail_delivery::io::{CertificateTrouble, Tls, TlsVersion, Verification};
use cmail_delivery::system_error::NetworkTrouble;
use cmail_delivery::tls::DaneMatch;
use std::time::Duration;

use super::scene::Setting;
use super::{Action, Given, Incident, Transcript, TranscriptError};
use crate::quoted::unquote;

/// Reads a transcript. Its observed lines are left out.
pub(crate) fn parse(text: &str) -> Result<Transcript, TranscriptError> {
    let mut transcript = Transcript { scene: Setting::default(), lines: Vec::new(), start: 0 };
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let malformed = |reason: String| TranscriptError::Malformed { line: number, reason };
        if is_observed(line) {
            continue;
        }
        let action = parse_action(line).map_err(malformed)?;
        if let Some(entry) = line.strip_prefix("@ ") {
            transcript.scene.read(entry).map_err(malformed)?;
        }
        transcript.lines.push(Given { number, text: line.to_owned(), action });
        if line.starts_with("@ ") {
            transcript.start = transcript.lines.len();
        }
    }
    let early = transcript.lines.iter().take(transcript.start).find(|line| line.action.is_some());
    if let Some(line) = early {
        let reason = "the scene must be set before anything happens".into();
        return Err(TranscriptError::Malformed { line: line.number, reason });
    }
    Ok(transcript)
}

fn is_observed(line: &str) -> bool {
    ["C+", "C-", "C^", "C:", "C.", "?", "="].iter().any(|verb| line.starts_with(verb))
}

fn parse_action(line: &str) -> Result<Option<Action>, String> {
    if line.is_empty() || line.starts_with('#') || line.starts_with("@ ") {
        return Ok(None);
    }
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    let action = match verb {
        "S:" => Action::Octets([rest.as_bytes(), b"\r\n"].concat()),
        "S|" => Action::Octets(unquote(rest)?.0),
        "+" => Action::Pass(parse_span(rest)?),
        "!" => Action::Incident(parse_incident(rest)?),
        _ => return Err(format!("unknown verb \"{verb}\"")),
    };
    Ok(Some(action))
}

fn parse_incident(text: &str) -> Result<Incident, String> {
    let (name, words) = text.split_once(' ').unwrap_or((text, ""));
    let or = |usual: &str| if words.is_empty() { usual.to_owned() } else { words.to_owned() };
    let incident = match name {
        "tls" => Incident::Tls(parse_tls(true, words)?),
        "tls-unverified" => Incident::Tls(parse_tls(false, words)?),
        "tls-failed" => Incident::TlsFailed(or("handshake failure")),
        "refused" => Incident::NotConnected(NetworkTrouble::Refused, or("connection refused")),
        "unreachable" => Incident::NotConnected(NetworkTrouble::Unreachable, or("no route to host")),
        "local" => Incident::Local(or("too many open files")),
        "reset" => Incident::Reset(or("connection reset by peer")),
        "takes" => {
            Incident::Takes(words.parse().map_err(|error| format!("\"{words}\" is no number: {error}"))?)
        }
        _ if words.is_empty() => parse_plain_incident(name)?,
        _ => return Err(format!("unknown incident \"{text}\"")),
    };
    Ok(incident)
}

/// Reads what a handshake has brought: the version if it is not the newest, what the TLSA records say, and whether the key is a pinned one.
fn parse_tls(is_verified: bool, words: &str) -> Result<Tls, String> {
    let trouble = CertificateTrouble::UnknownIssuer;
    let verification = if is_verified { Verification::Verified } else { Verification::Unverified(trouble) };
    let mut tls = Tls::new(TlsVersion::V1_3, verification);
    for word in words.split_ascii_whitespace() {
        match word {
            "1.2" => tls.version = TlsVersion::V1_2,
            "dane-ee" => tls.dane = Some(Ok(DaneMatch::EndEntity)),
            "dane-ta" => tls.dane = Some(Ok(DaneMatch::TrustAnchor)),
            "dane-mismatch" => tls.dane = Some(Err(CertificateTrouble::NoTlsaMatch)),
            "pinned" => tls.pin = Some(true),
            "not-pinned" => tls.pin = Some(false),
            _ => return Err(format!("\"{word}\" says nothing of a TLS session")),
        }
    }
    Ok(tls)
}

/// Reads an incident that its name tells completely.
fn parse_plain_incident(name: &str) -> Result<Incident, String> {
    Ok(match name {
        "eof" => Incident::Eof,
        "stall" => Incident::Stall,
        "yield" => Incident::Yield,
        "store-fails" => Incident::StoreFails,
        "crash" => Incident::Crash,
        "drain" => Incident::Drain,
        "try-now" => Incident::TryNow,
        _ => return Err(format!("unknown incident \"{name}\"")),
    })
}

fn parse_span(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|error| format!("\"{text}\" is no span of time: {error}"))?;
    Ok(match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(60 * number),
        "h" => Duration::from_secs(3600 * number),
        _ => return Err(format!("unknown unit \"{unit}\"")),
    })
}

/// Returns a span as transcripts have it, in minutes and seconds.
pub(super) fn span_text(span: Duration) -> String {
    let (minutes, seconds, millis) = (span.as_secs() / 60, span.as_secs() % 60, span.subsec_millis());
    match (minutes, millis) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{seconds}.{millis:03}s"),
        (_, 0) => format!("{minutes}m{seconds}s"),
        (_, _) => format!("{minutes}m{seconds}.{millis:03}s"),
    }
}

#[cfg(test)]
mod tests;
