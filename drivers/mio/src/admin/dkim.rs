//! The verb `dkim`: makes keys, prints their records, and checks that these are published.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use cmail_delivery::address::Domain;
use cmail_delivery::dkim::Algorithm;
use serde::Serialize;

use super::dns_texts::texts;
use super::words::{DkimWords, KeyWords, MakeWords};
use super::{Outcome, Tool, ToolError, complain};
use crate::config::{Config, Environment, SigningKeys};
use crate::dkim::{PrivateKey, make};
use crate::shown;

/// Longest string of a TXT record, in octets (RFC 1035 section 3.3.14).
const STRING_LIMIT_OCTETS: usize = 255;

/// The mode of a new key file: only the owner may read it.
const KEY_MODE: u32 = 0o600;

/// A record, as it is printed.
#[derive(Serialize)]
struct Record<'a> {
    name: String,
    text: &'a str,
}

/// What was found of a key.
#[derive(Serialize)]
struct Checked<'a> {
    name: String,
    good: bool,
    found: &'a str,
}

pub(super) fn dkim(tool: &Tool, words: &DkimWords) -> Result<Outcome, ToolError> {
    match words {
        DkimWords::Make(words) => make_key(tool, words),
        DkimWords::Record(words) => {
            let key = read(&words.path)?;
            print_record(tool, words, &key)
        }
        DkimWords::Check => check(tool),
    }
}

fn read(path: &Path) -> Result<PrivateKey, ToolError> {
    let unusable =
        |error| ToolError::NotDone(format!("the key file {} cannot be used: {error}", shown::path(path)));
    let (key, warning) = PrivateKey::read(path).map_err(unusable)?;
    if let Some(warning) = warning {
        complain(&format!("warning: {warning}"));
    }
    Ok(key)
}

/// Makes a key in a new file, and prints its record.
fn make_key(tool: &Tool, MakeWords { key: words, rsa }: &MakeWords) -> Result<Outcome, ToolError> {
    let algorithm = if *rsa { Algorithm::RsaSha256 } else { Algorithm::Ed25519Sha256 };
    let pem = make(algorithm).map_err(|error| ToolError::NotDone(error.to_string()))?;
    let path = &words.path;
    let failed =
        |error| ToolError::NotDone(format!("the key file {} cannot be written: {error}", shown::path(path)));
    // One that is there may be the only copy of a key whose record is published.
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(KEY_MODE).open(path).map_err(failed)?;
    file.write_all(pem.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    let key = read(path)?;
    complain(&format!(
        "the key is in {}; let the daemon's group read it (`chgrp`, `chmod 640`), publish the record, and then add: dkim_key {} {} {}",
        shown::path(path),
        words.domain,
        words.selector,
        shown::path(path)
    ));
    print_record(tool, words, &key)
}

/// Prints a record as a zone file has it, its text in strings that are short enough.
fn print_record(tool: &Tool, words: &KeyWords, key: &PrivateKey) -> Result<Outcome, ToolError> {
    let text = key.record().map_err(|error| ToolError::NotDone(error.to_string()))?;
    let name = name(&words.domain, &words.selector);
    let mut printer = tool.printer();
    if tool.options.json {
        printer.record("dkim_record", Record { name, text: &text })?;
    } else {
        let strings: Vec<String> = text
            .as_bytes()
            .chunks(STRING_LIMIT_OCTETS)
            .map(|string| format!("\"{}\"", String::from_utf8_lossy(string)))
            .collect();
        printer.line(format_args!("{name}. IN TXT ( {} )", strings.join(" ")))?;
    }
    printer.flush()?;
    Ok(Outcome::Done)
}

fn name(domain: &Domain, selector: &Domain) -> String {
    format!("{selector}._domainkey.{domain}")
}

/// Checks that the record of each key of the configuration is published.
fn check(tool: &Tool) -> Result<Outcome, ToolError> {
    let environment = Environment::of_this_host();
    let config = Config::without_database(&tool.options.config, &environment, SigningKeys::Read);
    let config = config.map_err(|rejection| {
        rejection.errors.iter().for_each(|error| complain(&error.to_string()));
        ToolError::NotDone("the configuration has errors, so no key is checked".to_owned())
    })?;
    let keys = &config.settings.signing.keys;
    let (mut printer, mut outcome) = (tool.printer(), Outcome::found(keys.len() as u64));
    for key in keys {
        let Some(private) = config.keys.find(key.id) else { continue };
        let own = private.record().map_err(|error| ToolError::NotDone(error.to_string()))?;
        let labels = format!("{}._domainkey", key.selector);
        let published = texts(&config.settings.resolver, &labels, &key.domain);
        let (good, found) = match &published {
            Ok(published) => judge(&own, published),
            Err(error) => (false, format!("its record cannot be looked up: {error}")),
        };
        if !good {
            outcome = Outcome::Bad;
        }
        let name = name(&key.domain, &key.selector);
        if tool.options.json {
            printer.record("dkim_check", Checked { name, good, found: &found })?;
        } else {
            printer.line(format_args!("{name}: {found}"))?;
        }
    }
    printer.flush()?;
    Ok(outcome)
}

/// Returns whether one of the published records is that of a key, and what is to be said of them.
fn judge(own: &str, published: &[Box<[u8]>]) -> (bool, String) {
    let bad = |text: &str| (false, text.to_owned());
    let keys: Vec<&[u8]> =
        published.iter().map(|text| &**text).filter(|text| value(text, "p").is_some()).collect();
    let record = match keys.as_slice() {
        [] => {
            return bad(
                "there is no record of a key; publish the one that `cmail-admin-queue dkim record` prints",
            );
        }
        [record] => *record,
        // RFC 6376 section 3.6.2.2: what is done with several is undefined.
        _ => return bad("there are several records of keys; leave one"),
    };
    let wanted = |tag| value(own.as_bytes(), tag).unwrap_or_default();
    let kind = value(record, "k").unwrap_or_else(|| "rsa".to_owned());
    let services = value(record, "s").unwrap_or_else(|| "*".to_owned());
    let hashes = value(record, "h");
    if value(record, "v").is_some_and(|version| version != "DKIM1") {
        return bad("its record is of another version (v=)");
    }
    if value(record, "p").as_deref() == Some("") {
        return bad("its record says that the key is revoked (an empty p=)");
    }
    if kind != wanted("k") {
        return bad("its record is of a key of another kind (k=)");
    }
    if value(record, "p") != Some(wanted("p")) {
        return bad("its record is of another key (p=)");
    }
    if hashes.is_some_and(|hashes| hashes.split(':').all(|hash| hash != "sha256")) {
        return bad("its record does not allow SHA-256 (h=)");
    }
    if services.split(':').all(|service| service != "*" && service != "email") {
        return bad("its record is not for mail (s=)");
    }
    match value(record, "t").is_some_and(|flags| flags.split(':').any(|flag| flag == "y")) {
        true => (
            true,
            "its record is published, and says that it is a test (t=y), so receivers may ignore signatures"
                .to_owned(),
        ),
        false => (true, "its record is published".to_owned()),
    }
}

/// Returns the value of a tag of a record, without white space.
fn value(record: &[u8], tag: &str) -> Option<String> {
    let text = String::from_utf8_lossy(record);
    let mut tags = text.split(';').filter_map(|part| part.split_once('='));
    let (_, value) = tags.find(|(name, _)| name.trim() == tag)?;
    Some(value.chars().filter(|character| !character.is_ascii_whitespace()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_judged_by_what_receivers_go_by() {
        let own = "v=DKIM1; k=ed25519; p=abc=";
        for (published, good) in [
            (&["v=DKIM1; k=ed25519; p=abc="][..], true),
            (&["k=ed25519; p= ab c=; t=y", "v=spf1 -all"], true),
            (&["v=DKIM1; k=ed25519; p=abc=; h=sha1:sha256; s=email"], true),
            (&["v=DKIM1; k=ed25519; p=abc=; h=sha1"], false),
            (&["v=DKIM1; k=ed25519; p=abc=; s=tlsrpt"], false),
            (&["v=DKIM1; p=abc="], false),
            (&["v=DKIM2; k=ed25519; p=abc="], false),
            (&["v=DKIM1; k=ed25519; p="], false),
            (&["v=DKIM1; k=ed25519; p=abd="], false),
            (&["v=DKIM1; k=ed25519; p=abc=", "v=DKIM1; k=ed25519; p=abd="], false),
            (&["v=spf1 -all"], false),
            (&[], false),
        ] {
            let octets: Vec<Box<[u8]>> = published.iter().map(|text| text.as_bytes().into()).collect();
            assert_eq!(judge(own, &octets).0, good, "{published:?}");
        }
    }
}
