//! MTA-STS (RFC 8461): what a domain says of its mail hosts by a record and a policy, and how long that holds.
//!
//! A [record](record::find) in the DNS says which policy is the current one. The [policy](StsPolicy) is fetched over HTTPS, so that the
//! authorities of the web vouch for it, and holds until it expires, whatever becomes of the record.

mod known;
mod policy;
mod record;

pub use self::known::{
    FetchTrouble, FindTrouble, Finding, KnownPolicy, LocalFindTrouble, StalePolicy, StoredPolicy,
};
pub use self::policy::{
    MAX_AGE_LIMIT_SECONDS, Mode, POLICY_LIMIT_OCTETS, PolicyTrouble, StsPolicy, is_plain_text,
};
pub use self::record::{PolicyId, RECORD_LABEL, RecordTrouble, find};
