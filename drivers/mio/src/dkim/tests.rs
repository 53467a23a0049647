use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use cmail_delivery::address::Domain;
use cmail_delivery::dkim::{Algorithm, KeyId, SignTrouble};
use cmail_delivery::outbox::RequestId;
use mio::{Poll, Token, Waker};

use super::*;

const ED25519_PEM: &[u8] = include_bytes!("ed25519.pem");
const RSA_PKCS1_PEM: &[u8] = include_bytes!("rsa-pkcs1.pem");
const RSA_PKCS8_PEM: &[u8] = include_bytes!("rsa-pkcs8.pem");

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

/// Returns the public key of a record.
fn public(key: &PrivateKey) -> Vec<u8> {
    let record = key.record().unwrap();
    BASE64.decode(record.rsplit_once("p=").unwrap().1).unwrap()
}

#[test]
fn keys_of_all_forms_sign_what_their_record_verifies() {
    let made = [Algorithm::RsaSha256, Algorithm::Ed25519Sha256].map(|kind| make(kind).unwrap());
    for pem in [ED25519_PEM, RSA_PKCS1_PEM, RSA_PKCS8_PEM, made[0].as_bytes(), made[1].as_bytes()] {
        let key = PrivateKey::from_pem(pem).unwrap();
        let message = b"what is signed";
        let digest: [u8; 32] =
            sha2::Digest::finalize(<sha2::Sha256 as sha2::Digest>::new_with_prefix(message)).into();
        let signature = key.sign(&digest).unwrap();
        match key.algorithm() {
            Algorithm::Ed25519Sha256 => {
                UnparsedPublicKey::new(&ED25519, public(&key)).verify(&digest, &signature).unwrap();
            }
            Algorithm::RsaSha256 => {
                let public = public(&key);
                UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &public)
                    .verify(message, &signature)
                    .unwrap();
            }
        }
    }
}

#[test]
fn what_is_no_key_to_sign_with_is_refused_with_the_reason() {
    let refused = |pem: &[u8]| PrivateKey::from_pem(pem).unwrap_err();
    assert_eq!(refused(b""), KeyError::NoKey);
    assert_eq!(refused(include_bytes!("../tls/rsa-2048.pem")), KeyError::NoKey);
    assert_eq!(refused(include_bytes!("ec.pem")), KeyError::Kind);
    assert_eq!(refused(include_bytes!("encrypted.pem")), KeyError::Encrypted);
    let short = refused(include_bytes!("rsa-1024.pem"));
    assert!(matches!(short, KeyError::Length(1024) | KeyError::Rejected(_)), "{short}");
    let broken = String::from_utf8_lossy(RSA_PKCS8_PEM).replace("MIIE", "MIIF");
    assert!(PrivateKey::from_pem(broken.as_bytes()).is_err());
}

#[test]
fn files_are_read_and_those_that_others_can_read_are_told_of() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    assert!(matches!(PrivateKey::read(&path), Err(KeyFileError::Unreadable(_))));
    assert!(matches!(PrivateKey::read(directory.path()), Err(KeyFileError::NoFile)));
    std::fs::write(&path, ED25519_PEM).unwrap();
    for (mode, is_told) in [(0o600, false), (0o640, false), (0o644, true)] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(PrivateKey::read(&path).unwrap().1.is_some(), is_told, "{mode:o}");
    }
}

/// Returns a ring with one key.
fn ring(pem: &[u8]) -> (KeyRing, KeyId) {
    let mut ring = KeyRing::default();
    let key = ring.add(domain("example.org"), domain("s"), PrivateKey::from_pem(pem).unwrap());
    (ring, key.id)
}

#[test]
fn the_same_key_has_the_same_id_and_another_one_another() {
    assert_eq!(ring(ED25519_PEM).1, ring(ED25519_PEM).1);
    assert_ne!(ring(ED25519_PEM).1, ring(RSA_PKCS8_PEM).1);
}

#[test]
fn threads_answer_each_request_in_its_order_also_by_keys_from_before() {
    let poll = Poll::new().unwrap();
    let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
    let mut signers = Signers::new(waker);
    assert!(signers.poll().is_none());
    let ((old, old_id), (new, new_id)) = (ring(ED25519_PEM), ring(RSA_PKCS8_PEM));
    signers.turn_to(old.clone());
    signers.turn_to(new);
    let digests: Vec<_> =
        (0..30).map(|number| (if number % 3 == 0 { new_id } else { old_id }, [number; 32])).collect();
    signers.sign(RequestId(1), digests.clone());
    signers.sign(RequestId(2), vec![(KeyId(7), [0; 32])]);
    signers.sign(RequestId(3), Vec::new());
    let (mut found, limit) = (Vec::new(), Instant::now() + Duration::from_secs(60));
    while found.len() < 3 && Instant::now() < limit {
        found.extend(signers.poll());
        std::thread::yield_now();
    }
    found.sort_by_key(|(request, _)| request.0);
    let [(_, first), (_, second), (_, third)] = <[_; 3]>::try_from(found).unwrap();
    assert_eq!((second, third.len()), (vec![Err(SignTrouble::NoKey)], 0));
    for (signature, (id, digest)) in first.iter().zip(&digests) {
        if *id == old_id {
            let public = public(old.find(old_id).unwrap());
            UnparsedPublicKey::new(&ED25519, public).verify(digest, signature.as_ref().unwrap()).unwrap();
        } else {
            assert_eq!(signature.as_ref().map(|signature| signature.len()), Ok(256));
        }
    }
    assert_eq!(first.len(), digests.len());
}
