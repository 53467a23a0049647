//! After the faults stop, all mail is dealt with within a bound of virtual time; a drain ends in time; and the core never spins.

use cmail_delivery::time::{Duration, Instant};

use super::Checker;
use crate::facts::{Fact, Scene};

/// Longest duration of a drain: 5 s, and the difference of the clocks of the two sides.
const DRAIN_LIMIT: Duration = Duration::from_millis(5100);

/// The checker of this module's invariant.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    draining_since: Option<Instant>,
}

impl Checker for Liveness {
    fn name(&self) -> &'static str {
        "what can be delivered is delivered"
    }

    fn see(&mut self, scene: &Scene<'_>, fact: Fact<'_>) -> Result<(), String> {
        match fact {
            Fact::Draining => self.draining_since = Some(scene.now.monotonic),
            Fact::Stopped { .. } => self.draining_since = None,
            Fact::Called { .. }
                if self.draining_since.is_some_and(|since| scene.now.monotonic > since + DRAIN_LIMIT) =>
            {
                return Err("the daemon does not come to its end".into());
            }
            Fact::Spins => return Err("the core asks to be called again at once, for ever".into()),
            Fact::Finished => {
                let left: Vec<String> = scene
                    .outbox
                    .mails()
                    .take(5)
                    .map(|(id, mail)| {
                        let state = mail.fail_state(id);
                        let last = mail.faillog.last().map(|attempt| String::from_utf8_lossy(&attempt.text));
                        format!(
                            "{id} to {} by {:?}, {} attempts, {}",
                            String::from_utf8_lossy(&mail.recipient),
                            mail.remote.as_deref().map(String::from_utf8_lossy),
                            state.fail_count,
                            last.unwrap_or_default().escape_debug()
                        )
                    })
                    .collect();
                if !left.is_empty() {
                    return Err(format!("{} mails are left: {}", scene.outbox.len(), left.join("; ")));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
