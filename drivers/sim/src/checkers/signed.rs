//! What is to be signed leaves with signatures of all keys of its author's domain, which fit what went over the wire; everything else
//! leaves as it is.

use std::collections::{BTreeMap, BTreeSet};

use cmail_delivery::dkim::{KeyId, SignMark};
use cmail_delivery::io::Purpose;
use cmail_delivery::memory_outbox::Mail;
use cmail_delivery::settings::Settings;
use cmail_delivery::time::Instant;

use super::Checker;
use crate::dkim::{author_domain, divide, verify};
use crate::facts::{Fact, Link, Scene};
use crate::outbox::MailKey;

/// The checker of this module's invariant.
#[derive(Debug, Default)]
pub(super) struct Signed {
    opened: BTreeMap<Link, Instant>,
}

impl Checker for Signed {
    fn name(&self) -> &'static str {
        "what is to be signed leaves signed"
    }

    fn see(&mut self, scene: &Scene<'_>, fact: Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Connecting { link, purpose: Purpose::Smtp, .. } => {
                self.opened.insert(link, scene.said_since.min(scene.now.monotonic));
            }
            // A server may still take what was sent before the connection was over.
            Fact::Started { epoch, .. } => self.opened.retain(|link, _| link.epoch + 1 >= epoch),
            Fact::Accepted { link, data, keys, .. } => {
                let (signatures, message) = divide(data);
                if signatures.is_empty()
                    && scene.settings.signing.keys.is_empty()
                    && scene.earlier_settings.is_empty()
                {
                    return Ok(());
                }
                let signers: Result<BTreeSet<KeyId>, String> =
                    signatures.iter().map(|signature| verify(signature, message)).collect();
                let signers = signers.map_err(|error| format!("[{link}] a signature is wrong: {error}"))?;
                let since = self.opened.get(&link).copied().unwrap_or_default();
                for mail in mails(scene, keys) {
                    let is_right = |settings: &Settings| is_right(settings, mail, message, &signers);
                    if !scene.settings_since(since).any(is_right) {
                        let mark = mail.wishes.message.sign;
                        return Err(format!(
                            "[{link}] mail of {:?} with the mark {mark:?} is signed by {signers:?}",
                            author_domain(message)
                        ));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Returns the mails of the outbox that have these keys.
fn mails<'a>(scene: &Scene<'a>, keys: &[MailKey]) -> impl Iterator<Item = &'a Mail> {
    let all = scene.outbox.mails().map(|(_, mail)| mail);
    all.filter(|mail| {
        keys.iter().any(|key| key.recipient == mail.recipient) && keys.contains(&MailKey::of(mail))
    })
}

/// Returns whether a mail is to be signed by these keys.
fn is_right(settings: &Settings, mail: &Mail, message: &[u8], signers: &BTreeSet<KeyId>) -> bool {
    let mark = mail.wishes.message.sign;
    let author = author_domain(message).filter(|_| settings.signing.covers(mark));
    let keys = settings.signing.keys.iter().filter(|key| Some(key.domain.as_str()) == author.as_deref());
    let expected: BTreeSet<KeyId> = keys.map(|key| key.id).collect();
    *signers == expected || (mark == SignMark::IfPossible && signers.is_empty())
}
