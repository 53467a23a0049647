//! The directives `dkim_key` and `dkim_sign`.

use std::path::Path;
use std::sync::Arc;

use cmail_delivery::address::Domain;
use cmail_delivery::dkim::{Algorithm, KeyId, SignedMail, SigningKey, SigningRules};

use super::directive::Located;
use super::directives::Directives;
use super::errors::Reason;
use super::values::{self, ValueError};
use super::{Completion, Config};
use crate::dkim::{KeyRing, PrivateKey};

/// The name of the directive for keys.
const KEY: &str = "dkim_key";

/// What a file says of signatures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DkimLines {
    keys: Vec<Located<KeyLine>>,
    mail: SignedMail,
}

/// A key to sign with.
#[derive(Clone, Debug, PartialEq, Eq)]
struct KeyLine {
    domain: Domain,
    selector: Domain,
    path: Box<str>,
}

impl DkimLines {
    /// Returns the rules as far as they are known without reading any key: which domains have some.
    pub(super) fn rules_without_keys(&self) -> SigningRules {
        let key = |line: &Located<KeyLine>| {
            let KeyLine { domain, selector, .. } = line.value.clone();
            SigningKey { id: KeyId(0), domain, selector, algorithm: Algorithm::RsaSha256 }
        };
        SigningRules { keys: self.keys.iter().map(key).collect(), mail: self.mail }
    }
}

pub(super) fn add_key(to: &mut Directives, text: Located<&str>) -> Result<(), ValueError> {
    let mut words = text.value.splitn(3, values::is_white_space);
    let (Some(domain), Some(selector), Some(path)) = (words.next(), words.next(), words.next()) else {
        return Err(ValueError::DkimKey(text.value.into()));
    };
    let parse = |word: &str| Domain::parse(word).map_err(|_| ValueError::DkimKey(text.value.into()));
    let path = values::path(path.trim_start_matches(values::is_white_space))?;
    if path.is_empty() {
        return Err(ValueError::DkimKey(text.value.into()));
    }
    let value = KeyLine { domain: parse(domain)?, selector: parse(selector)?, path };
    let is_same = |line: &&Located<KeyLine>| {
        (&line.value.domain, &line.value.selector) == (&value.domain, &value.selector)
    };
    if let Some(earlier) = to.dkim.keys.iter().find(is_same) {
        return Err(ValueError::DkimKeyTwice { line: earlier.line });
    }
    to.dkim.keys.push(Located { line: text.line, value });
    Ok(())
}

pub(super) fn set_mail(to: &mut Directives, text: Located<&str>) -> Result<(), ValueError> {
    to.dkim.mail = match text.value {
        "marked" => SignedMail::Marked,
        "from" => SignedMail::All,
        other => return Err(ValueError::DkimSign(other.into())),
    };
    Ok(())
}

/// Shows the keys.
pub(super) fn show_keys(config: &Config) -> Option<String> {
    super::table::show_lines(
        config
            .directives
            .dkim
            .keys
            .iter()
            .map(|line| format!("{} {} {}", line.value.domain, line.value.selector, line.value.path)),
    )
}

/// Shows which mail is signed.
pub(super) fn show_mail(config: &Config) -> Option<String> {
    Some(match config.directives.dkim.mail {
        SignedMail::Marked => "marked".to_owned(),
        SignedMail::All => "from".to_owned(),
    })
}

impl Completion<'_> {
    /// Reads the keys. Returns them with the rules by which mail is signed.
    pub(super) fn signing(&mut self, lines: &DkimLines) -> (KeyRing, Arc<SigningRules>) {
        let mut ring = KeyRing::default();
        let mut keys = Vec::with_capacity(lines.keys.len());
        for Located { line, value: KeyLine { domain, selector, path } } in &lines.keys {
            let path = match self.environment.absolute(Path::new(&**path)) {
                Ok(path) => path,
                Err(error) => {
                    let path = Path::new(&**path).to_owned();
                    self.fail(Some(*line), KEY, Reason::WorkingDirectory { path, error });
                    continue;
                }
            };
            match PrivateKey::read(&path) {
                Ok((key, warning)) => {
                    if let Some(warning) = warning {
                        self.warn(Some(*line), KEY, warning);
                    }
                    keys.push(ring.add(domain.clone(), selector.clone(), key));
                    self.credentials_files.push(path);
                }
                Err(error) => self.fail(Some(*line), KEY, Reason::DkimKey { path, error }),
            }
        }
        (ring, Arc::new(SigningRules { keys, mail: lines.mail }))
    }
}
