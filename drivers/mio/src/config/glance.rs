//! What a configuration file says by itself, for the operator's tool. This host is asked nothing, because the tool must answer also where a
//! name cannot be looked up or a certificate cannot be read.

use std::fs;
use std::io;
use std::path::{self, Path, PathBuf};

use cmail_delivery::policy::{LocalAddresses, Policies};
use cmail_delivery::settings::{ResolverSettings, Settings};

use super::destination::DestinationLine;
use super::{Directives, host_name, settings, values};
use crate::control::ControlPlace;
use crate::store::LedgerSettings;

/// The name that is announced where neither the file nor this host has one.
const ANNOUNCE: &str = "localhost";

/// What a file says by itself.
#[derive(Debug)]
pub(crate) struct Glance {
    /// The master database, if the file names one.
    pub(crate) database: Option<PathBuf>,
    /// The settings: those of the lines without an error, and else the defaults.
    pub(crate) settings: Settings,
    /// Where `destination` lines send mail. Their relays are without credentials.
    pub(crate) routes: Policies,
    /// What the ledger has.
    pub(crate) ledger: LedgerSettings,
    /// Where the daemon is asked.
    pub(crate) control: ControlPlace,
    /// Where messages are handed over to it.
    pub(crate) submit: Option<PathBuf>,
    /// The number of errors in the file.
    pub(crate) errors: usize,
}

impl Glance {
    /// Reads a file.
    pub(crate) fn at(file: &Path) -> io::Result<Self> {
        Ok(Self::of(file, &fs::read(file)?))
    }

    /// Returns the defaults, for where there is no file.
    pub(crate) fn of_defaults() -> Self {
        Self { errors: 0, ..Self::of(Path::new(""), b"") }
    }

    fn of(file: &Path, octets: &[u8]) -> Self {
        let (directives, errors) = Directives::parse(file, octets);
        let database = directives.database.as_ref();
        let database = database.and_then(|text| path::absolute(Path::new(&*text.value)).ok());
        let of_host = || values::announce(&host_name().ok()?).ok();
        let announce = directives.announce.clone().or_else(of_host).unwrap_or_else(|| ANNOUNCE.into());
        let settings = settings::settings(
            &directives,
            announce,
            ResolverSettings::new(Vec::new()),
            LocalAddresses::default(),
            Vec::new(),
        );
        let settings = Settings { signing: directives.dkim.rules_without_keys().into(), ..settings };
        let control = match directives.control.map(|place| place.value) {
            // The directory of this process is there, or no path of the file leads anywhere.
            Some(ControlPlace::At(place)) => ControlPlace::At(path::absolute(&place).unwrap_or(place)),
            place => place.unwrap_or_default(),
        };
        let destinations =
            directives.destinations.iter().filter_map(DestinationLine::route).collect::<Vec<_>>();
        let routes = Policies::new(&settings.policy, &destinations);
        let submit = directives.submit.map(|text| PathBuf::from(&*text.value));
        let submit = submit.map(|place| path::absolute(&place).unwrap_or(place));
        Self { database, settings, routes, ledger: directives.ledger, control, submit, errors: errors.len() }
    }
}
