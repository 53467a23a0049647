//! AUTH (RFC 4954): the mechanisms that are tried, and their order.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::context::SessionContext;
use super::state::State;
use super::types::{SessionNote, SessionOutput};
use crate::command::Command;
use crate::ending::Unsuitable;
use crate::reply::{Reply, ReplyClass, ReplyCode};
use crate::sasl::{Exchange, Mechanism, SaslError};
use crate::tls::Verification;

/// The mechanisms tried after the first: those that work with every kind of password file come before the others.
const FALLBACKS: [Mechanism; 3] = [Mechanism::Plain, Mechanism::Login, Mechanism::CramMd5];

/// An authentication that is under way.
#[derive(Debug)]
pub(super) struct Authentication {
    exchange: Exchange,
    /// The mechanisms that the server offers and has not called unknown, strongest first.
    offered: Vec<Mechanism>,
    /// True if the credentials were refused with another mechanism.
    is_second_try: bool,
}

impl Authentication {
    /// Begins authentication if there are credentials: a session never continues without it, and never sends credentials
    /// unprotected.
    pub(super) fn begin(cx: &mut SessionContext) -> State {
        let Some(credentials) = &cx.config.credentials else { return State::ready(cx) };
        // TLSA records and pins vouch for a server as well as an authority does.
        let lack = match cx.peer {
            Some((proved, _)) if proved.is_authentic() => None,
            Some((_, Verification::Verified)) => None,
            Some((_, Verification::Unverified(trouble))) => Some(Unsuitable::CertificateInvalid(trouble)),
            None => Some(Unsuitable::NoTls),
        };
        if let Some(reason) = lack.filter(|_| !cx.config.auth_unprotected) {
            return State::leave_unauthenticated(reason, cx);
        }
        let password = credentials.password.clone();
        cx.keep_secret(&password);
        // RFC 4954 section 4: only mechanisms that are offered.
        let offered = cx.extensions.auth.clone();
        let proven = cx.config.mechanism.filter(|mechanism| offered.contains(mechanism));
        match proven.or(offered.first().copied()) {
            Some(mechanism) => Self::attempt(mechanism, offered, false, cx),
            None => State::leave_unauthenticated(Unsuitable::NoMechanism, cx),
        }
    }

    fn attempt(
        mechanism: Mechanism,
        offered: Vec<Mechanism>,
        is_second_try: bool,
        cx: &mut SessionContext,
    ) -> State {
        let Some(credentials) = &cx.config.credentials else { return State::ready(cx) };
        let mut exchange = Exchange::new(mechanism, credentials, &mut cx.rng);
        let initial_response = exchange.initial_response();
        cx.send(&Command::Auth {
            mechanism: mechanism.name(),
            initial_response: initial_response.as_deref(),
        });
        State::ExpectAuth(Box::new(Self { exchange, offered, is_second_try }))
    }

    pub(super) fn on_reply(mut self: Box<Self>, reply: &Reply, cx: &mut SessionContext) -> State {
        let text = reply.lines().next().unwrap_or_default();
        if reply.code() == ReplyCode::AUTH_CHALLENGE {
            if reply.is_cut() {
                return Self::give_up(SaslError::ChallengeTooLong, cx);
            }
            // The exchange limits the number of challenges: it answers only those of its mechanism.
            return match self.exchange.respond(text) {
                Ok(response) => {
                    cx.send(&Command::AuthLine(&response));
                    State::ExpectAuth(self)
                }
                Err(error) => Self::give_up(error, cx),
            };
        }
        if reply.class() == ReplyClass::Completed {
            return match self.exchange.finish(text) {
                Ok(()) => {
                    cx.output(SessionOutput::Authenticated(Some(self.exchange.mechanism())));
                    State::ready(cx)
                }
                Err(error) => {
                    cx.output(SessionOutput::Authenticated(None));
                    State::leave_unauthenticated(failed(error, cx), cx)
                }
            };
        }
        self.on_refusal(reply, cx)
    }

    /// Tries a weaker mechanism, because the server may store the password in a form that not every mechanism that it offers can
    /// use. But most refusals concern the password, and some servers lock out clients that present a wrong one too often.
    fn on_refusal(mut self: Box<Self>, reply: &Reply, cx: &mut SessionContext) -> State {
        // A weaker mechanism is even less suited to a channel that does not suit this one, and the credentials are not at fault.
        if reply.is_about_the_channel() {
            return State::ExpectAuth(self).refused(&cx.masked(reply), cx);
        }
        let mechanism = self.exchange.mechanism();
        let is_unknown = reply.code() == ReplyCode::AUTH_MECHANISM_UNKNOWN;
        if is_unknown {
            self.offered.retain(|offered| *offered != mechanism);
        } else {
            cx.output(SessionOutput::Authenticated(None));
        }
        let may_fall_back = is_unknown || is_about_the_credentials(reply.code()) && !self.is_second_try;
        let fallback = FALLBACKS.into_iter().find(|fallback| self.offered.contains(fallback));
        if let Some(weaker) = fallback.filter(|fallback| may_fall_back && *fallback > mechanism) {
            cx.output(SessionOutput::Note(SessionNote::MechanismRefused(cx.masked(reply))));
            return Self::attempt(weaker, self.offered, self.is_second_try || !is_unknown, cx);
        }
        State::ExpectAuth(self).refused(&cx.masked(reply), cx)
    }

    /// RFC 4954 section 4: a lone asterisk cancels the exchange.
    fn give_up(error: SaslError, cx: &mut SessionContext) -> State {
        cx.output(SessionOutput::Authenticated(None));
        cx.send(&Command::AuthLine("*"));
        State::ExpectAuthEnd(failed(error, cx))
    }
}

/// Returns whether a refusal of AUTH says that the proof or the kind of proof is insufficient (RFC 4954 section 6).
fn is_about_the_credentials(code: ReplyCode) -> bool {
    matches!(code, ReplyCode::AUTH_MECHANISM_TOO_WEAK | ReplyCode::AUTH_CREDENTIALS_INVALID)
}

/// The error may quote the server, so secrets and control characters are removed.
fn failed(error: SaslError, cx: &SessionContext) -> Unsuitable {
    Unsuitable::NotAuthenticated(match error {
        SaslError::Rejected(text) => {
            let shown = cx.masked_text(&text);
            SaslError::Rejected(shown.chars().filter(|character| !character.is_control()).collect())
        }
        error @ (SaslError::Credentials
        | SaslError::NotBase64
        | SaslError::ChallengeTooLong
        | SaslError::Malformed
        | SaslError::Nonce
        | SaslError::Iterations
        | SaslError::ServerSignature
        | SaslError::Unexpected) => error,
    })
}
