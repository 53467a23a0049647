//! Exit statuses by which programs that hand over mail know what became of it (sysexits.h).

/// The command line is not understood (`EX_USAGE`).
pub(crate) const USAGE: u8 = 64;
/// An address or the message is wrong (`EX_DATAERR`).
pub(crate) const DATA: u8 = 65;
/// The mail cannot be taken, which has to be mended first (`EX_UNAVAILABLE`).
pub(crate) const UNAVAILABLE: u8 = 69;
/// The mail cannot be taken now, but perhaps later (`EX_TEMPFAIL`).
pub(crate) const TEMPORARY: u8 = 75;
/// The user may not do that (`EX_NOPERM`).
pub(crate) const NOT_ALLOWED: u8 = 77;
/// The configuration is wrong (`EX_CONFIG`).
pub(crate) const CONFIGURATION: u8 = 78;
