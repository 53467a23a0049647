//! Mail of our own that tells the sender of a mail what becomes of it, other than a bounce.

use alloc::vec::Vec;

use bytes::Bytes;

use crate::ids::MailId;

/// A notice to insert that tells the sender of a mail what becomes of it, with null sender and `mail_remote` NULL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNotice {
    /// The recipient: the sender of the mail.
    pub recipient: Bytes,
    /// The contents of `mail_data`.
    pub data: Bytes,
}

/// What the sender of late mail was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warned {
    /// The late mail: rows with equal sender, data and [`MessageWishes`](crate::dsn::MessageWishes).
    pub originals: Vec<MailId>,
    /// The row of the warning.
    pub warning: MailId,
}

/// What the sender of delivered mail was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reported {
    /// The delivered mail.
    pub original: MailId,
    /// The row of the report.
    pub report: MailId,
}
