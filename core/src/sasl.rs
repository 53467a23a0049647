//! The client's side of SASL: PLAIN, LOGIN, CRAM-MD5 and SCRAM-SHA-256, as they travel in AUTH (RFC 4954).

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::mem;
use core::str;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::Md5;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::next_hop::Credentials;
use crate::rng::Rng;

/// Most iterations that a server may request of SCRAM. They are computed at once, so more would let a server stop all other
/// conversations for longer than 50 ms on a processor without instructions for SHA-256. Mail servers request between 4096 (RFC
/// 7677 section 4) and some ten thousand.
pub const SCRAM_ITERATION_LIMIT: u32 = 50_000;

/// Longest challenge in octets, still in base64 (RFC 4954 section 4: 12288 with its CRLF).
pub const CHALLENGE_LIMIT_OCTETS: usize = 12_286;

/// Longest AUTH command in octets, with its CRLF (RFC 5321 section 4.5.3.1.4).
const AUTH_COMMAND_LIMIT_OCTETS: usize = 512;

/// Randomness of a SCRAM nonce in octets; divisible by three, so that its base64 needs no padding.
const NONCE_OCTETS: usize = 24;

/// Most characters of a server's error text that are kept.
const SERVER_ERROR_LIMIT: usize = 100;

/// No channel binding (RFC 5802 section 6), and no other identity to act as.
const GS2_HEADER: &str = "n,,";

/// Some servers omit the padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A mechanism of authentication. The order is that of preference, the strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mechanism {
    /// RFC 7677. The password is not sent, and the server proves that it knows it too.
    ScramSha256,
    /// RFC 2195. The password is not sent.
    CramMd5,
    /// RFC 4616.
    Plain,
    /// Never a standard, but the only mechanism of some servers (draft-murchison-sasl-login).
    Login,
}

impl Mechanism {
    /// All mechanisms, the strongest first.
    pub const ALL: [Self; 4] = [Self::ScramSha256, Self::CramMd5, Self::Plain, Self::Login];

    /// Returns the name under which servers offer it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::CramMd5 => "CRAM-MD5",
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
        }
    }

    /// Returns the mechanism with this name, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The reason why an exchange cannot continue. No text in it shows a secret.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SaslError {
    /// The user name or the password contains a NUL, which no mechanism can transmit (RFC 4616 section 2).
    #[error("the credentials contain a NUL octet, which cannot be sent")]
    Credentials,
    /// The challenge is not base64.
    #[error("the server's challenge is not base64 text")]
    NotBase64,
    /// The challenge is longer than [`CHALLENGE_LIMIT_OCTETS`], or than the kept part of a line of a reply.
    #[error("the server's challenge is too long")]
    ChallengeTooLong,
    /// The challenge is not valid for the mechanism.
    #[error("the server's challenge is not one of SCRAM-SHA-256")]
    Malformed,
    /// The server's nonce does not continue ours: the challenge may be a replay.
    #[error("the server's nonce does not continue ours")]
    Nonce,
    /// The server requests no iterations, or more than [`SCRAM_ITERATION_LIMIT`].
    #[error("the server asks for an iteration count outside 1 to {SCRAM_ITERATION_LIMIT}")]
    Iterations,
    /// The server has sent a wrong signature or none, so it may not know the password.
    #[error("the server has not proved that it knows the password")]
    ServerSignature,
    /// The server reports an error in the exchange itself.
    #[error("the server has ended the exchange: {0}")]
    Rejected(String),
    /// The exchange is complete, but the server sends another challenge.
    #[error("the server goes on asking after the end of the exchange")]
    Unexpected,
}

/// One authentication exchange, from the AUTH command to its last reply. After an error it stays failed.
pub struct Exchange {
    mechanism: Mechanism,
    credentials: Credentials,
    state: ExchangeState,
}

/// What the server is expected to send next.
enum ExchangeState {
    /// A request for the initial response, unless that is sent with the command.
    ExpectStart { nonce: String },
    /// LOGIN: the prompt for the password.
    ExpectPasswordPrompt,
    /// SCRAM: its nonce, the salt and the iteration count.
    ExpectServerFirst { client_first_bare: String, nonce: String },
    /// SCRAM: its signature, which is verified.
    ExpectServerFinal { signature: Hmac<Sha256> },
    /// The final reply.
    ExpectVerdict,
    /// Nothing; the exchange has failed.
    Failed,
}

impl Exchange {
    /// Returns an exchange that has not begun.
    pub fn new(mechanism: Mechanism, credentials: &Credentials, rng: &mut Rng) -> Self {
        let mut nonce = [0; NONCE_OCTETS];
        if mechanism == Mechanism::ScramSha256 {
            rng.fill(&mut nonce);
        }
        // Base64 is printable and contains no comma, as RFC 5802 section 7 requires of a nonce.
        Self::with_nonce(mechanism, credentials, STANDARD.encode(nonce))
    }

    /// Returns an exchange with a known nonce.
    fn with_nonce(mechanism: Mechanism, credentials: &Credentials, nonce: String) -> Self {
        Self { mechanism, credentials: credentials.clone(), state: ExchangeState::ExpectStart { nonce } }
    }

    /// Returns the mechanism.
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// Returns the argument after the mechanism's name in the AUTH command, in base64, if there is one.
    ///
    /// `None` if the server speaks first, or if the command would be too long. Then it answers the server's first, empty
    /// challenge (RFC 4954 section 4).
    pub fn initial_response(&mut self) -> Option<String> {
        let ExchangeState::ExpectStart { nonce } = &self.state else { return None };
        if self.check_credentials().is_err() {
            return None;
        }
        let (response, next) = match self.mechanism {
            Mechanism::CramMd5 | Mechanism::Login => return None,
            Mechanism::Plain => (self.plain_response(), ExchangeState::ExpectVerdict),
            Mechanism::ScramSha256 => self.scram_first(nonce.clone()),
        };
        let response = STANDARD.encode(response);
        let command_octets = "AUTH  \r\n".len() + self.mechanism.name().len() + response.len();
        if command_octets > AUTH_COMMAND_LIMIT_OCTETS {
            return None;
        }
        self.state = next;
        Some(response)
    }

    /// Returns the line that answers a 334 reply, in base64 and without its CRLF. It may be empty. `challenge` is the text of the
    /// reply, still in base64.
    ///
    /// After an error the client cancels the exchange with a lone `*` (RFC 4954 section 4).
    pub fn respond(&mut self, challenge: &[u8]) -> Result<String, SaslError> {
        // If anything fails below, the exchange is over.
        let state = mem::replace(&mut self.state, ExchangeState::Failed);
        self.check_credentials()?;
        if challenge.len() > CHALLENGE_LIMIT_OCTETS {
            return Err(SaslError::ChallengeTooLong);
        }
        let (response, next) = match state {
            ExchangeState::ExpectStart { nonce } => self.start(challenge, nonce)?,
            ExchangeState::ExpectPasswordPrompt => {
                ((*self.credentials.password).to_owned(), ExchangeState::ExpectVerdict)
            }
            ExchangeState::ExpectServerFirst { client_first_bare, nonce } => {
                self.scram_final(&decode_text(challenge)?, &client_first_bare, &nonce)?
            }
            ExchangeState::ExpectServerFinal { signature } => {
                verify_server_final(&decode_text(challenge)?, signature)?;
                (String::new(), ExchangeState::ExpectVerdict)
            }
            ExchangeState::ExpectVerdict | ExchangeState::Failed => return Err(SaslError::Unexpected),
        };
        self.state = next;
        Ok(STANDARD.encode(response))
    }

    /// Processes the text of the reply by which the server accepts the client (235).
    ///
    /// SCRAM is complete only after the server, too, has proved that it knows the password (RFC 5802 section 5). Its proof should
    /// come in a challenge (RFC 4954 section 4), but some servers send it as the text of this reply.
    pub fn finish(&mut self, text: &[u8]) -> Result<(), SaslError> {
        match mem::replace(&mut self.state, ExchangeState::Failed) {
            ExchangeState::ExpectVerdict => {}
            ExchangeState::ExpectServerFinal { signature } => {
                let proves = |word: &[u8]| {
                    decode_text(word).is_ok_and(|text| verify_server_final(&text, signature.clone()).is_ok())
                };
                let mut words = text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
                if text.len() > CHALLENGE_LIMIT_OCTETS || !words.any(proves) {
                    return Err(SaslError::ServerSignature);
                }
            }
            // The other mechanisms require no proof from the server: its acceptance is enough.
            ExchangeState::ExpectStart { .. } | ExchangeState::ExpectPasswordPrompt
                if self.mechanism != Mechanism::ScramSha256 => {}
            ExchangeState::ExpectStart { .. }
            | ExchangeState::ExpectPasswordPrompt
            | ExchangeState::ExpectServerFirst { .. }
            | ExchangeState::Failed => return Err(SaslError::ServerSignature),
        }
        self.state = ExchangeState::ExpectVerdict;
        Ok(())
    }

    /// Fails if the credentials contain a NUL: it would end a field of PLAIN, and SCRAM excludes it.
    fn check_credentials(&self) -> Result<(), SaslError> {
        let has_nul = |text: &str| text.bytes().any(|octet| octet == 0);
        if has_nul(&self.credentials.user) || has_nul(&self.credentials.password) {
            return Err(SaslError::Credentials);
        }
        Ok(())
    }

    /// Returns the answer to the first challenge, if nothing was sent with the command.
    fn start(&self, challenge: &[u8], nonce: String) -> Result<(String, ExchangeState), SaslError> {
        Ok(match self.mechanism {
            Mechanism::ScramSha256 => self.scram_first(nonce),
            Mechanism::CramMd5 => (self.cram_response(&decode(challenge)?)?, ExchangeState::ExpectVerdict),
            Mechanism::Plain => (self.plain_response(), ExchangeState::ExpectVerdict),
            // The prompts of LOGIN differ between servers, so only their order counts.
            Mechanism::Login => ((*self.credentials.user).to_owned(), ExchangeState::ExpectPasswordPrompt),
        })
    }

    /// Returns the response of RFC 4616 section 2: no identity to act as, NUL, identity, NUL, password, and nothing after.
    fn plain_response(&self) -> String {
        format!("\0{}\0{}", self.credentials.user, self.credentials.password)
    }

    /// Returns the response of RFC 2195 section 2: the user, a space, and the keyed digest of the challenge in lower-case
    /// hexadecimal.
    fn cram_response(&self, challenge: &[u8]) -> Result<String, SaslError> {
        let mut digest = Hmac::<Md5>::new_from_slice(self.credentials.password.as_bytes())
            .map_err(|_| SaslError::Credentials)?;
        digest.update(challenge);
        Ok(format!("{} {}", self.credentials.user, Hexadecimal(&digest.finalize().into_bytes())))
    }

    /// Returns the client's first message (RFC 5802 section 5).
    fn scram_first(&self, nonce: String) -> (String, ExchangeState) {
        // Section 5.1: separators are escaped in a name. Names and passwords that are not ASCII are used as they are, without
        // preparation, because most servers store them so.
        let user = self.credentials.user.replace('=', "=3D").replace(',', "=2C");
        let client_first_bare = format!("n={user},r={nonce}");
        let message = format!("{GS2_HEADER}{client_first_bare}");
        (message, ExchangeState::ExpectServerFirst { client_first_bare, nonce })
    }

    /// Returns the client's final message, with its proof (RFC 5802 section 3).
    fn scram_final(
        &self,
        server_first: &str,
        client_first_bare: &str,
        client_nonce: &str,
    ) -> Result<(String, ExchangeState), SaslError> {
        let ServerFirst { nonce, salt, iterations } = ServerFirst::parse(server_first)?;
        // Section 5.1: the client must verify that the server's nonce begins with its own.
        if nonce.strip_prefix(client_nonce).is_none_or(str::is_empty) {
            return Err(SaslError::Nonce);
        }
        let salted_password: [u8; 32] =
            pbkdf2::pbkdf2_array::<Hmac<Sha256>, 32>(self.credentials.password.as_bytes(), &salt, iterations)
                .map_err(|_| SaslError::Credentials)?;
        let without_proof = format!("c={},r={nonce}", STANDARD.encode(GS2_HEADER));
        let auth_message = format!("{client_first_bare},{server_first},{without_proof}");

        let mut proof: [u8; 32] =
            hmac_sha256(&salted_password, b"Client Key")?.finalize().into_bytes().into();
        let stored_key = Sha256::digest(proof);
        let client_signature = hmac_sha256(&stored_key, auth_message.as_bytes())?.finalize().into_bytes();
        for (octet, mask) in proof.iter_mut().zip(client_signature) {
            *octet ^= mask;
        }

        let server_key = hmac_sha256(&salted_password, b"Server Key")?.finalize().into_bytes();
        let signature = hmac_sha256(&server_key, auth_message.as_bytes())?;
        let message = format!("{without_proof},p={}", STANDARD.encode(proof));
        Ok((message, ExchangeState::ExpectServerFinal { signature }))
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Exchange({}, hidden)", self.mechanism)
    }
}

/// The server's first message of SCRAM (RFC 5802 section 7).
struct ServerFirst<'a> {
    nonce: &'a str,
    salt: Vec<u8>,
    iterations: u32,
}

impl<'a> ServerFirst<'a> {
    /// Parses `r=…,s=…,i=…`; extensions after these are ignored, one before them is mandatory and unknown.
    fn parse(message: &'a str) -> Result<Self, SaslError> {
        let mut attributes = message.split(',');
        let mut attribute = |name: &str| {
            attributes.next().and_then(|text| text.strip_prefix(name)).ok_or(SaslError::Malformed)
        };
        let nonce = attribute("r=")?;
        let salt = STANDARD.decode(attribute("s=")?).map_err(|_| SaslError::Malformed)?;
        let iterations = attribute("i=")?;
        if iterations.is_empty() || !iterations.bytes().all(|octet| octet.is_ascii_digit()) {
            return Err(SaslError::Malformed);
        }
        let iterations = iterations
            .parse()
            .ok()
            .filter(|count| (1..=SCRAM_ITERATION_LIMIT).contains(count))
            .ok_or(SaslError::Iterations)?;
        Ok(Self { nonce, salt, iterations })
    }
}

/// Checks the server's final message (RFC 5802 section 7): `v=` and its signature, or `e=` and an error.
fn verify_server_final(message: &str, signature: Hmac<Sha256>) -> Result<(), SaslError> {
    let attribute = message.split(',').next().unwrap_or_default();
    if let Some(error) = attribute.strip_prefix("e=") {
        let printable = error.chars().filter(char::is_ascii_graphic).take(SERVER_ERROR_LIMIT).collect();
        return Err(SaslError::Rejected(printable));
    }
    let verifier = attribute.strip_prefix("v=").ok_or(SaslError::Malformed)?;
    let verifier = STANDARD.decode(verifier).map_err(|_| SaslError::Malformed)?;
    signature.verify_slice(&verifier).map_err(|_| SaslError::ServerSignature)
}

/// Returns the keyed digest of `message`, not yet finalized.
fn hmac_sha256(key: &[u8], message: &[u8]) -> Result<Hmac<Sha256>, SaslError> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|_| SaslError::Credentials)?;
    mac.update(message);
    Ok(mac)
}

/// Decodes a challenge.
fn decode(base64: &[u8]) -> Result<Vec<u8>, SaslError> {
    LENIENT.decode(base64.trim_ascii()).map_err(|_| SaslError::NotBase64)
}

/// Decodes a challenge that is text.
fn decode_text(base64: &[u8]) -> Result<String, SaslError> {
    String::from_utf8(decode(base64)?).map_err(|_| SaslError::Malformed)
}

/// Prints octets in lower-case hexadecimal.
struct Hexadecimal<'a>(&'a [u8]);

impl fmt::Display for Hexadecimal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

#[cfg(test)]
mod tests;
