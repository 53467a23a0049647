//! The outbound mail daemon of the cmail suite.

use std::env;
use std::path::Path;
use std::process::ExitCode;

use cmail_dispatchd::config::Config;
use cmail_dispatchd::startup::{self, Engine, Shell};
use nix::unistd::{Gid, Uid};

fn main() -> ExitCode {
    startup::run::<Unconnected>(env::args_os().skip(1))
}

/// A program whose database and network are not connected yet: it can only check that the database exists.
struct Unconnected;

impl Engine for Unconnected {
    type Error = String;

    fn prepare(_: &Config) -> Result<Self, String> {
        Ok(Self)
    }

    fn check_database(path: &Path) -> Result<(), String> {
        match path.metadata() {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("the database {path:?} cannot be opened: {error}")),
        }
    }

    fn create_database(path: &Path, _: Option<(Uid, Gid)>) -> Result<(), String> {
        Err(format!("the database {path:?} cannot be created: the database is not connected yet"))
    }

    fn open(&mut self, config: &Config) -> Result<(), String> {
        Self::check_database(&config.database)
    }

    fn run(self, _: Shell) -> Result<(), String> {
        Err("the network is not connected yet".to_owned())
    }
}
