//! What persons have asked, and what is under way to answer it.

use super::probes::Probes;
use super::scouts::Scouts;

/// The inquiries that are not answered yet: scouts only look for a way, probes go it.
#[derive(Debug, Default)]
pub(super) struct Inquiries {
    pub(super) scouts: Scouts,
    pub(super) probes: Probes,
}
