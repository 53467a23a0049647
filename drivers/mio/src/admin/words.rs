//! The command line of the tool. The help and the manual page are made of it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::selection::Selection;

/// The operator's tool of the outbound mail daemon cmail-dispatchd: what waits in the outbox, what was tried, and why
#[derive(Debug, Parser)]
#[command(name = "cmail-admin-queue", version, disable_help_subcommand = true)]
pub(super) struct Words {
    #[command(flatten)]
    pub(super) options: Options,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

/// What holds for all verbs.
#[derive(Clone, Debug, Args)]
pub(super) struct Options {
    /// The master database; without it, the one that the configuration names
    #[arg(long, value_name = "FILE", global = true, env = "CMAIL_MASTER_DB")]
    pub(super) dbpath: Option<PathBuf>,
    /// The configuration of the daemon: it names the database, and says when mail is tried again
    #[arg(long, value_name = "FILE", global = true, default_value = "/etc/cmail/dispatchd.conf")]
    pub(super) config: PathBuf,
    /// How much is told on standard error: 0 warnings, 1 notes, 3 details, 4 all
    #[arg(long, value_name = "N", global = true, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=4))]
    pub(super) verbosity: u8,
    /// Print one JSON object per line, with times as numbers
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Print at most so many lines
    #[arg(long, value_name = "N", global = true)]
    pub(super) limit: Option<u64>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List the mail in the outbox: id, age, size, failed attempts, when it is tried next, sender, recipient, last reply
    List(ListWords),
}

/// The words of `list`.
#[derive(Debug, Args)]
pub(super) struct ListWords {
    #[command(flatten)]
    pub(super) selection: Selection,
}
