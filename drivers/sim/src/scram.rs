//! The server's side of SCRAM-SHA-256 (RFC 7677). It depends on what the client has said, so it cannot be written in a
//! transcript.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

const SALT: &[u8] = b"salt of a transcript";
/// The server's addition to the client's nonce.
const SERVER_NONCE: &str = "and-the-servers";

/// The exchange so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Scram {
    client_first_bare: Option<String>,
    server_first: String,
    iterations: u32,
    client_final: Option<String>,
}

impl Scram {
    /// Records a line of the client, in base64.
    pub(super) fn said(&mut self, line: &str) {
        let Some(text) = STANDARD.decode(line).ok().and_then(|octets| String::from_utf8(octets).ok()) else {
            return;
        };
        if let Some(bare) = text.strip_prefix("n,,") {
            self.client_first_bare = Some(bare.to_owned());
        } else if text.starts_with("c=") {
            self.client_final = Some(text);
        }
    }

    /// Returns the server's line with its proof filled in.
    pub(super) fn filled_in(&mut self, line: &str, password: &str) -> Result<String, String> {
        let (Some(begin), Some(end)) = (line.find('{'), line.find('}')) else { return Ok(line.to_owned()) };
        let what = line.get(begin + 1..end).unwrap_or_default();
        let text = match what.split_once(' ') {
            Some(("scram-first", iterations)) => self.first(iterations)?,
            None if what == "scram-final" => self.last(password)?,
            Some(_) | None => return Ok(line.to_owned()),
        };
        let (before, after) =
            (line.get(..begin).unwrap_or_default(), line.get(end + 1..).unwrap_or_default());
        Ok(format!("{before}{}{after}", STANDARD.encode(text)))
    }

    fn first(&mut self, iterations: &str) -> Result<String, String> {
        let bare = self.client_first_bare.as_deref().ok_or("no SCRAM-SHA-256 has begun")?;
        let nonce = bare.split_once(",r=").map(|(_, nonce)| nonce).ok_or("the client has sent no nonce")?;
        self.iterations = iterations.parse().map_err(|error| format!("\"{iterations}\": {error}"))?;
        self.server_first = format!("r={nonce}{SERVER_NONCE},s={},i={iterations}", STANDARD.encode(SALT));
        Ok(self.server_first.clone())
    }

    /// RFC 5802 section 3.
    fn last(&self, password: &str) -> Result<String, String> {
        let bare = self.client_first_bare.as_deref().ok_or("no SCRAM-SHA-256 has begun")?;
        let last = self.client_final.as_deref().ok_or("the client has proved nothing")?;
        let without_proof = last.split_once(",p=").map_or(last, |(text, _)| text);
        let mut salted = [0; 32];
        pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), SALT, self.iterations, &mut salted);
        let server_key = hmac(&salted, b"Server Key")?;
        let message = format!("{bare},{},{without_proof}", self.server_first);
        Ok(format!("v={}", STANDARD.encode(hmac(&server_key, message.as_bytes())?)))
    }
}

fn hmac(key: &[u8], text: &[u8]) -> Result<Vec<u8>, String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|error| error.to_string())?;
    mac.update(text);
    Ok(mac.finalize().into_bytes().to_vec())
}
