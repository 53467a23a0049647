//! Errors of a configuration, in sentences that name the place.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use cmail_delivery::next_hop::Relay;
use thiserror::Error;

use super::credentials::CredentialsError;
use super::values::ValueError;
use crate::dkim::KeyFileError;
use crate::shown;
use crate::tls::IdentityError;

/// An error in a configuration file, with its place: `FILE:LINE: DIRECTIVE: REASON`.
#[derive(Debug, Error)]
pub struct ConfigError {
    /// The configuration file.
    pub file: PathBuf,
    /// Counted from 1; `None` where no single line is at fault.
    pub line: Option<usize>,
    /// The name of the directive as written; empty where no directive is at fault.
    pub directive: Box<str>,
    /// What is wrong.
    pub reason: Reason,
}

impl ConfigError {
    pub(super) fn new(file: &Path, line: Option<usize>, directive: &str, reason: Reason) -> Self {
        Self { file: file.to_owned(), line, directive: directive.into(), reason }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show_place(f, &self.file, self.line, &self.directive)?;
        write!(f, "{}", self.reason)
    }
}

/// Something that the administrator should know although it is not an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigWarning {
    /// The configuration file, or another one that was read.
    pub file: PathBuf,
    /// Counted from 1; `None` where no single line is at fault.
    pub line: Option<usize>,
    /// The directive.
    pub directive: &'static str,
    /// What to know.
    pub text: String,
}

impl fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show_place(f, &self.file, self.line, self.directive)?;
        f.write_str(&self.text)
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub enum Reason {
    /// The file itself cannot be read.
    #[error("the configuration file cannot be read: {0}")]
    Unreadable(io::Error),
    /// A directive that is not UTF-8.
    #[error("the line is not UTF-8 text")]
    NotUtf8,
    /// No such directive.
    #[error("unknown directive{}", did_you_mean(*.meant))]
    UnknownDirective {
        /// One with a similar name.
        meant: Option<&'static str>,
    },
    /// Nothing follows the name.
    #[error("the value is missing")]
    MissingValue,
    /// A directive that may be given once.
    #[error("the directive is already given on line {first_line}, and may be given only once")]
    Repeated {
        /// Where it was given first.
        first_line: usize,
    },
    /// A directive that has to be there.
    #[error("the directive is missing, and there is no default")]
    Missing,
    /// The value is not valid.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// No such user.
    #[error("there is no user \"{}\"", shown::value(.0))]
    UnknownUser(Box<str>),
    /// No such group.
    #[error("there is no group \"{}\"", shown::value(.0))]
    UnknownGroup(Box<str>),
    /// The users cannot be looked up.
    #[error("\"{}\" cannot be looked up: {error}", shown::value(.name))]
    AccountLookup {
        /// The user or group.
        name: Box<str>,
        /// What the system says.
        error: io::Error,
    },
    /// The certificate of the client, or its key, cannot be used.
    #[error(transparent)]
    Client(IdentityError),
    /// The certificate of the client without its key, or the other way round.
    #[error("{0} is missing: a certificate and its key must both be given")]
    HalfClient(&'static str),
    /// The file of trusted certificates cannot be read.
    #[error("the trust file {path} cannot be read: {error}", path = shown::path(.path))]
    TrustFileUnreadable {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The file of trusted certificates is damaged.
    #[error("the trust file {path} is not valid PEM: {error}", path = shown::path(.path))]
    TrustFileDamaged {
        /// Its path.
        path: PathBuf,
        /// What the parser says.
        error: String,
    },
    /// The file of trusted certificates contains no certificate.
    #[error("the trust file {path} contains no certificate", path = shown::path(.path))]
    TrustFileEmpty {
        /// Its path.
        path: PathBuf,
    },
    /// One file cannot serve two purposes.
    #[error("{other} already uses this file")]
    SameFile {
        /// What uses it, with its line.
        other: String,
    },
    /// The host that `bind` names has no address.
    #[error("\"{}\" has no address: {error}", shown::value(.host))]
    BindHost {
        /// The value of the directive.
        host: Box<str>,
        /// What the system says.
        error: io::Error,
    },
    /// Connections cannot come from an address of one family and go to one of the other.
    #[error("bind has no address of the family that they are to be made to")]
    BindOfOtherFamily,
    /// The credentials of a relay cannot be read.
    #[error("the file of credentials {path} cannot be used: {error}", path = shown::path(.path))]
    Credentials {
        /// Its path.
        path: PathBuf,
        /// Why.
        error: CredentialsError,
    },
    /// A key to sign with cannot be read.
    #[error("the key file {path} cannot be used: {error}", path = shown::path(.path))]
    DkimKey {
        /// Its path.
        path: PathBuf,
        /// Why.
        error: KeyFileError,
    },
    /// There is no file of that name. The word may be a password, so it is not told.
    #[error(
        "the file that is named behind credentials cannot be used: {0}; write name and password into a file, as USER:PASSWORD, \
         and its path behind credentials"
    )]
    NoCredentials(io::Error),
    /// A relay that is never used, since its credentials would go without TLS.
    #[error(
        "via {relay}: credentials are not sent without TLS, so this relay is never used; write /starttls or /tls behind its port, \
         as in HOST:587/starttls (auth_insecure yes would send them in the clear)"
    )]
    ClearCredentials {
        /// The relay, whose text is without the credentials.
        relay: Relay,
    },
    /// One relay cannot be used in two ways.
    #[error(
        "line {earlier} sends mail via the same relay and says something else of it; all of that mail shares its connections, so say it once"
    )]
    Contradiction {
        /// The other line.
        earlier: u32,
    },
    /// There is no journal.
    #[error(
        "the journal of systemd cannot be written (/run/systemd/journal/socket: {0}); let systemd-journald run, or choose another format"
    )]
    NoJournal(io::Error),
    /// There is no `announce`, and the host has no name to announce.
    #[error("the directive is missing, and the host's name cannot be used instead: {0}")]
    HostName(String),
    /// A path is relative, and the working directory does not exist.
    #[error("the path {path} is relative, but there is no working directory: {error}", path = shown::path(.path))]
    WorkingDirectory {
        /// The path.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

fn show_place(f: &mut fmt::Formatter<'_>, file: &Path, line: Option<usize>, directive: &str) -> fmt::Result {
    // A file or its name may contain line ends, but an error is always one line.
    write!(f, "{}:", shown::path(file))?;
    if let Some(line) = line {
        write!(f, "{line}:")?;
    }
    if !directive.is_empty() {
        write!(f, " {}:", shown::value(directive))?;
    }
    f.write_str(" ")
}

/// Returns the end of an error about an unknown word.
fn did_you_mean(meant: Option<&str>) -> String {
    meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default()
}
