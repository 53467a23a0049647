//! Never a bounce of a bounce, or of anything else that has the null sender (RFC 5321 section 6.1).

use super::Checker;
use crate::facts::{Fact, Origin, Scene};

/// The checker of this module's invariant.
#[derive(Debug, Default)]
pub(super) struct BounceLoop;

impl Checker for BounceLoop {
    fn name(&self) -> &'static str {
        "no bounce is bounced"
    }

    fn see(&mut self, scene: &Scene<'_>, fact: Fact<'_>) -> Result<(), String> {
        if let Fact::Committing { commit, .. } = fact {
            for replacement in commit.replaced.iter().filter(|replacement| replacement.bounce.is_some()) {
                for &id in &replacement.originals {
                    let is_null = |mail: &cmail_delivery::memory_outbox::Mail| {
                        mail.sender.as_deref().is_none_or(<[u8]>::is_empty)
                    };
                    if scene.outbox.mail(id).is_some_and(is_null) {
                        return Err(format!("mail {id} has the null sender, and is bounced"));
                    }
                }
            }
        }
        if let Fact::Inserted { id, origin: Origin::BounceOf(_) } = fact
            && scene.outbox.mail(id).is_some_and(|mail| mail.sender.is_some())
        {
            return Err(format!("the bounce {id} has a sender"));
        }
        Ok(())
    }
}
