//! Signatures in the simulation: nobody can forge them there, so what they prove is in them.

use cmail_delivery::dkim::{Digest, KeyId, SignTrouble, Signature};

/// Signs digests, each with its key. What was signed can be read in a signature.
pub(crate) fn made(digests: &[(KeyId, Digest)]) -> Vec<Result<Signature, SignTrouble>> {
    digests.iter().map(|(key, digest)| Ok(signature(*key, digest))).collect()
}

/// Signs a digest.
pub(crate) fn signature(key: KeyId, digest: &Digest) -> Signature {
    [&key.0.to_be_bytes()[..], digest].concat().into()
}
