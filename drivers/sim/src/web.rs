//! The web of the simulation.

use cmail_delivery::io::{HttpsError, HttpsTrouble};

/// Returns that nobody answers at a host.
pub(crate) fn unreachable_host() -> HttpsError {
    HttpsError::new(HttpsTrouble::Unreachable, "no such host")
}
