//! The server's half of AUTH, verified for real, from RFC 4616, 2195, 5802 and 7677.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha2::{Digest, Sha256};

/// The credentials a server knows.
pub(crate) struct Account<'a> {
    pub(crate) user: &'a str,
    pub(crate) password: &'a str,
    /// End SCRAM with a wrong server signature.
    pub(crate) scram_lies: bool,
}

/// Runs one exchange. `ask` sends a challenge (already in base64) and returns the client's line, or `None`
/// when it cancelled. True: the client proved itself.
pub(crate) fn verify(
    account: &Account<'_>,
    mechanism: &str,
    initial: Option<&str>,
    ask: &mut dyn FnMut(&str) -> Option<String>,
) -> bool {
    match mechanism {
        "PLAIN" => plain(account, initial, ask),
        "LOGIN" => login(account, initial, ask),
        "CRAM-MD5" => cram_md5(account, ask),
        "SCRAM-SHA-256" => scram(account, initial, ask),
        other => panic!("the client chose {other}, which no test offers"),
    }
    .unwrap_or(false)
}

type Ask<'a> = &'a mut dyn FnMut(&str) -> Option<String>;

fn plain(account: &Account<'_>, initial: Option<&str>, ask: Ask<'_>) -> Option<bool> {
    let response = match initial {
        Some(initial) => initial.to_owned(),
        None => ask("")?,
    };
    // RFC 4616 section 2: authzid NUL authcid NUL passwd, and nothing after.
    let expected = format!("\0{}\0{}", account.user, account.password);
    Some(decode(&response)? == expected.into_bytes())
}

fn login(account: &Account<'_>, initial: Option<&str>, ask: Ask<'_>) -> Option<bool> {
    let user = match initial {
        Some(initial) => initial.to_owned(),
        None => ask(&STANDARD.encode("Username:"))?,
    };
    let password = ask(&STANDARD.encode("Password:"))?;
    Some(decode(&user)? == account.user.as_bytes() && decode(&password)? == account.password.as_bytes())
}

fn cram_md5(account: &Account<'_>, ask: Ask<'_>) -> Option<bool> {
    let challenge = "<1896.697170952@mail.example>";
    let response = decode(&ask(&STANDARD.encode(challenge))?)?;
    let mut mac = Hmac::<Md5>::new_from_slice(account.password.as_bytes()).ok()?;
    mac.update(challenge.as_bytes());
    let digest: String = mac.finalize().into_bytes().iter().map(|octet| format!("{octet:02x}")).collect();
    Some(response == format!("{} {digest}", account.user).into_bytes())
}

fn scram(account: &Account<'_>, initial: Option<&str>, ask: Ask<'_>) -> Option<bool> {
    let first = match initial {
        Some(initial) => initial.to_owned(),
        None => ask("")?,
    };
    let first = String::from_utf8(decode(&first)?).ok()?;
    // RFC 5802 section 7: gs2-header (no channel binding: "n,," or "y,,"), then n=user,r=nonce.
    let bare = first.strip_prefix("n,,").or_else(|| first.strip_prefix("y,,"))?;
    let gs2 = &first[..first.len() - bare.len()];
    let user = bare.strip_prefix("n=")?.split(',').next()?.replace("=2C", ",").replace("=3D", "=");
    let nonce = bare.split_once(",r=")?.1;
    let (salt, rounds) = (b"salt of the test", 4096);
    let server_first = format!("r={nonce}SERVER,s={},i={rounds}", STANDARD.encode(salt));
    let last = String::from_utf8(decode(&ask(&STANDARD.encode(&server_first))?)?).ok()?;
    let (without_proof, proof) = last.split_once(",p=")?;
    if without_proof != format!("c={},r={nonce}SERVER", STANDARD.encode(gs2)) || user != account.user {
        return Some(false);
    }
    let mut salted = [0u8; 32];
    pbkdf2::pbkdf2_hmac::<Sha256>(account.password.as_bytes(), salt, rounds, &mut salted);
    let auth_message = format!("{bare},{server_first},{without_proof}");
    let stored_key: [u8; 32] = Sha256::digest(hmac_sha256(&salted, b"Client Key")).into();
    let signature = hmac_sha256(&stored_key, auth_message.as_bytes());
    let client_key: Vec<u8> = decode(proof)?.iter().zip(signature).map(|(p, s)| p ^ s).collect();
    if Sha256::digest(&client_key).as_slice() != stored_key {
        return Some(false);
    }
    let server_key = hmac_sha256(&salted, b"Server Key");
    let mut verifier = hmac_sha256(&server_key, auth_message.as_bytes());
    if account.scram_lies {
        verifier[0] ^= 1;
    }
    Some(ask(&STANDARD.encode(format!("v={}", STANDARD.encode(verifier))))?.is_empty())
}

fn hmac_sha256(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text);
    mac.finalize().into_bytes().into()
}

fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(if text == "=" { "" } else { text }).ok()
}
