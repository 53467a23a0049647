//! The keys of signatures (DKIM), and the threads that sign. Nothing else in the program has private keys for that.

mod key;
mod key_file;
mod signers;
#[cfg(test)]
mod tests;

pub(crate) use self::key::make;
pub use self::key::{KeyError, KeyRing, PrivateKey};
pub use self::key_file::KeyFileError;
pub(crate) use self::signers::Signers;
