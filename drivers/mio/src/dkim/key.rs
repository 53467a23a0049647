//! A private key, and all of them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{Digest as MadeDigest, SHA256};
use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use cmail_delivery::address::Domain;
use cmail_delivery::dkim::{Algorithm, Digest, KeyId, SignTrouble, SigningKey};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// The shortest RSA key that is accepted, in bits: receivers do not count signatures by shorter ones (RFC 8301 section 3.2).
const RSA_LEAST_BITS: usize = 2048;
/// The longest one, in bits: not all receivers verify signatures by longer ones (RFC 8301 section 3.2).
const RSA_MOST_BITS: usize = 4096;

/// Why a text is no key to sign with.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum KeyError {
    /// There is no key in it.
    #[error("it holds no private key in PEM form (\"PRIVATE KEY\" or \"RSA PRIVATE KEY\")")]
    NoKey,
    /// The key is encrypted, and nobody is there to give its password.
    #[error(
        "its key is encrypted: store it without a password, as by `openssl pkey`, and let only the daemon read the file"
    )]
    Encrypted,
    /// The key is of a kind that mail is not signed with.
    #[error("its key is neither RSA nor Ed25519")]
    Kind,
    /// The RSA key is too short or too long.
    #[error("its RSA key has {0} bits, and must have {RSA_LEAST_BITS} to {RSA_MOST_BITS}")]
    Length(usize),
    /// The key does not hold together.
    #[error("its key is refused: {0}")]
    Rejected(Box<str>),
}

/// A private key.
pub struct PrivateKey {
    pair: Pair,
    /// The digest of its encoding.
    fingerprint: [u8; 32],
}

enum Pair {
    Rsa(RsaKeyPair),
    Ed25519(Ed25519KeyPair),
    /// Panics when it signs.
    #[cfg(test)]
    Panicking,
}

impl fmt::Debug for PrivateKey {
    /// Tells nothing of the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.algorithm().name())
    }
}

impl PrivateKey {
    /// Reads the first key of a PEM file: PKCS#8, or PKCS#1 for RSA.
    pub fn from_pem(octets: &[u8]) -> Result<Self, KeyError> {
        let found = PrivateKeyDer::from_pem_slice(octets).map_err(|_| {
            let is_encrypted = octets.windows(9).any(|word| word == b"ENCRYPTED");
            if is_encrypted { KeyError::Encrypted } else { KeyError::NoKey }
        })?;
        let pair = match &found {
            PrivateKeyDer::Pkcs1(der) => Pair::Rsa(rsa(RsaKeyPair::from_der(der.secret_pkcs1_der()))?),
            PrivateKeyDer::Pkcs8(der) => {
                let der = der.secret_pkcs8_der();
                // OpenSSL writes Ed25519 keys without their public key.
                match Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
                    Ok(pair) => Pair::Ed25519(pair),
                    Err(_) if is_rsa(der) => Pair::Rsa(rsa(RsaKeyPair::from_pkcs8(der))?),
                    Err(_) => return Err(KeyError::Kind),
                }
            }
            PrivateKeyDer::Sec1(_) | _ => return Err(KeyError::Kind),
        };
        let fingerprint = Sha256::digest(found.secret_der()).into();
        Ok(Self { pair, fingerprint })
    }

    /// Returns a key whose signing panics.
    #[cfg(test)]
    pub(super) fn that_panics() -> Self {
        Self { pair: Pair::Panicking, fingerprint: [0; 32] }
    }

    /// Returns how it signs.
    pub fn algorithm(&self) -> Algorithm {
        match &self.pair {
            Pair::Rsa(_) => Algorithm::RsaSha256,
            Pair::Ed25519(_) => Algorithm::Ed25519Sha256,
            #[cfg(test)]
            Pair::Panicking => Algorithm::Ed25519Sha256,
        }
    }

    /// Returns the text of the record that publishes its public key (RFC 6376 section 3.6.1, RFC 8463 section 4).
    pub fn record(&self) -> Result<String, KeyError> {
        let (kind, octets) = match &self.pair {
            Pair::Rsa(pair) => {
                let der: PublicKeyX509Der<'_> = pair
                    .public_key()
                    .as_der()
                    .map_err(|_| KeyError::Rejected("its public key cannot be written".into()))?;
                ("rsa", der.as_ref().to_vec())
            }
            Pair::Ed25519(pair) => ("ed25519", pair.public_key().as_ref().to_vec()),
            #[cfg(test)]
            Pair::Panicking => ("ed25519", Vec::new()),
        };
        Ok(format!("v=DKIM1; k={kind}; p={}", BASE64.encode(octets)))
    }

    /// Signs a digest.
    pub fn sign(&self, digest: &Digest) -> Result<Bytes, SignTrouble> {
        let refused = |_| SignTrouble::Failed("the cryptographic library refuses to sign".into());
        match &self.pair {
            Pair::Rsa(pair) => {
                let digest = MadeDigest::import_less_safe(digest, &SHA256).map_err(refused)?;
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign_digest(&RSA_PKCS1_SHA256, &digest, &mut signature).map_err(refused)?;
                Ok(signature.into())
            }
            Pair::Ed25519(pair) => {
                let signature = pair.try_sign(digest).map_err(refused)?;
                Ok(Bytes::copy_from_slice(signature.as_ref()))
            }
            #[cfg(test)]
            Pair::Panicking => panic!("as wanted"),
        }
    }

    /// Returns the id that it has as the key of this domain and selector. Another key has another one, as far as SHA-256 tells keys apart.
    fn id(&self, domain: &Domain, selector: &Domain) -> KeyId {
        let text = format!("{domain} {selector} ");
        let digest: [u8; 32] =
            Sha256::new().chain_update(text).chain_update(self.fingerprint).finalize().into();
        KeyId(digest.first_chunk().map_or(0, |octets| u64::from_be_bytes(*octets)))
    }
}

/// Returns an RSA key that may be used.
fn rsa(pair: Result<RsaKeyPair, aws_lc_rs::error::KeyRejected>) -> Result<RsaKeyPair, KeyError> {
    let pair = pair.map_err(|error| KeyError::Rejected(error.to_string().into()))?;
    match pair.public_modulus_len() * 8 {
        RSA_LEAST_BITS..=RSA_MOST_BITS => Ok(pair),
        bits => Err(KeyError::Length(bits)),
    }
}

/// Returns whether a key of PKCS#8 says that it is one of RSA: the object identifier rsaEncryption (RFC 8017 appendix A.1) stands in it.
fn is_rsa(der: &[u8]) -> bool {
    const RSA_ENCRYPTION: [u8; 11] = [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
    let beginning = der.get(..32).unwrap_or(der);
    beginning.windows(RSA_ENCRYPTION.len()).any(|octets| octets == RSA_ENCRYPTION)
}

/// The keys of a configuration.
#[derive(Clone, Debug, Default)]
pub struct KeyRing(BTreeMap<KeyId, Arc<PrivateKey>>);

impl KeyRing {
    /// Adds a key. Returns what messages tell of it.
    pub fn add(&mut self, domain: Domain, selector: Domain, key: PrivateKey) -> SigningKey {
        let (id, algorithm) = (key.id(&domain, &selector), key.algorithm());
        self.0.insert(id, Arc::new(key));
        SigningKey { id, domain, selector, algorithm }
    }

    /// Returns a key.
    pub(crate) fn find(&self, id: KeyId) -> Option<&PrivateKey> {
        self.0.get(&id).map(|key| &**key)
    }

    /// Signs a digest.
    pub(super) fn sign(&self, id: KeyId, digest: &Digest) -> Result<Bytes, SignTrouble> {
        self.0.get(&id).ok_or(SignTrouble::NoKey)?.sign(digest)
    }

    /// Returns these keys and those of another ring.
    pub(super) fn with(&self, other: &Self) -> Self {
        let mut keys = other.0.clone();
        keys.extend(self.0.iter().map(|(id, key)| (*id, Arc::clone(key))));
        Self(keys)
    }
}

/// Makes a key of this kind. Returns it as PKCS#8 in PEM form.
pub(crate) fn make(algorithm: Algorithm) -> Result<String, KeyError> {
    use aws_lc_rs::encoding::Pkcs8V1Der;
    use aws_lc_rs::rsa::KeySize;
    let refused = |_| KeyError::Rejected("the cryptographic library makes no key".into());
    let der = match algorithm {
        Algorithm::RsaSha256 => {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(refused)?;
            let der: Pkcs8V1Der<'_> = pair.as_der().map_err(refused)?;
            der.as_ref().to_vec()
        }
        Algorithm::Ed25519Sha256 => {
            Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).map_err(refused)?.as_ref().to_vec()
        }
    };
    let text = BASE64.encode(der);
    let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END PRIVATE KEY-----\n");
    Ok(pem)
}
