//! The command line of the tool. The help and the manual page are made of it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use cmail_delivery::address::Domain;

use super::clock::Since;
use crate::selection::{AddressPattern, Destination, Selection};

/// Operator's tool of the outbound mail daemon cmail-dispatchd
///
/// Shows what waits in the outbox, what was tried, and why, and changes it.
#[derive(Debug, Parser)]
#[command(name = "cmail-admin-queue", version, disable_help_subcommand = true)]
#[command(subcommand_value_name = "VERB", subcommand_help_heading = "Verbs")]
pub(super) struct Words {
    #[command(flatten)]
    pub(super) options: Options,
    #[command(subcommand)]
    pub(super) action: Action,
}

/// What holds for all verbs.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "For all verbs")]
pub(super) struct Options {
    /// The master database; without it, that of the environment variable CMAIL_MASTER_DB, or else the one that the configuration names
    #[arg(long, value_name = "FILE", global = true)]
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
    /// Print times in UTC instead of the local time
    #[arg(long, global = true)]
    pub(super) utc: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Action {
    #[command(flatten)]
    Verb(Box<Verb>),
    /// Put a message from standard input into the outbox; the words are those of sendmail
    ///
    /// Also when the tool is called as sendmail; called as mailq it is `list`. Recipients stand on the command line, and with -t in To, Cc and
    /// Bcc. Missing Date, Message-ID and From are added; Bcc and Return-Path are removed. An address without a domain, also in the header, gets the
    /// name of this host (the directive announce). Exits with a status of sysexits.h: 64 wrong usage, 65 no or a wrong recipient, 69 the database is damaged
    /// or refuses the mail, 75 locked or full (try again), 77 not allowed, 78 no database.
    #[command(disable_help_flag = true)]
    Submit(SubmitWords),
    /// Show a record of a conversation (directive record), and whether it would go the same way today; needs no database
    Replay(ReplayWords),
}

/// What is done with the mail of the outbox and with what was tried.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List the mail in the outbox: id, age, size, failed attempts, when it is tried next, sender, recipient, last reply
    List(ListWords),
    /// Count the mail in the outbox by destination and age
    Summary(SummaryWords),
    /// Show all of one mail: its envelope, when it is tried next and by which rule, each attempt, its last conversation
    Show(ShowWords),
    /// Search the attempts that were made and what became of mail, the newest last
    History(HistoryWords),
    /// Try mail now, whatever its time; an attempt before its time that fails for now does not count
    Retry(RetryWords),
    /// Hold mail: it is neither tried nor given up until it is released
    Hold(HoldWords),
    /// Release held mail
    Release(ReleaseWords),
    /// Give mail up, and send a bounce to its sender
    Fail(FailWords),
    /// Delete mail, without a bounce
    Drop(DropWords),
    /// Send mail by another relay, or by the MX of its domain
    Redirect(RedirectWords),
    /// Say what happens next to a mail or to a destination, and why not more: what it waits for, servers in order, limits
    ///
    /// The daemon itself is asked. If none runs, the servers are looked for by this process, which does not know what a daemon remembers of
    /// them.
    Explain(ExplainWords),
    /// Find out by a real conversation what would become of a mail, without sending one: MAIL, RCPT, RSET and QUIT
    ///
    /// The daemon makes the conversation, within its limits. If none runs, this process makes it, for which it needs no database. Exits
    /// with 1 if the mail would not be taken.
    Probe(ProbeWords),
    /// Ask the daemon how everything stands: mail, connections, hosts in trouble, configuration, database, log
    Status,
    /// Let the daemon read its configuration again, and say what has changed or what is wrong, as SIGHUP does in its log
    Reload,
    /// Show what is said in conversations, line by line as it is said, until Ctrl-C
    Trace(TraceWords),
    /// Show every two seconds how mail goes: rates, connections, destinations with most mail, slowest hosts; one line each where the output is no terminal
    Top,
    /// Blank an address in what is recorded: in the ledger, its transcripts, and orders that are done
    ///
    /// It is blanked in sender, recipient, Message-ID and text of attempts, in transcripts, and in orders, that by which it is forgotten
    /// included. Left alone is what is still needed, or is not ours: mail in the outbox and its failures (faillog), also in bounces; holds that stand; the log; backups. What
    /// happens later is recorded anew. The pages of the database may hold the old text until they are used again.
    Forget(ForgetWords),
    /// List what holds mail, orders and lines of the configuration: what each is about, since when and until when, by whom and why, and how much mail it holds
    Holds,
    /// Make keys that mail is signed with (DKIM), print their DNS records, and check that these are published; needs no daemon
    #[command(subcommand)]
    Dkim(DkimWords),
}

/// The words of `dkim`.
#[derive(Debug, Subcommand)]
pub(super) enum DkimWords {
    /// Make a key in a new file, and print its record
    Make(MakeWords),
    /// Print the record of a key
    Record(KeyWords),
    /// Look up the records of all keys of the configuration; exits with 1 if one is not as it should be
    Check,
}

/// The words of `dkim make`.
#[derive(Debug, Args)]
pub(super) struct MakeWords {
    #[command(flatten)]
    pub(super) key: KeyWords,
    /// Make a key of RSA with 2048 bits, which all receivers know; else it is one of Ed25519, which is small and quick
    #[arg(long)]
    pub(super) rsa: bool,
}

/// A key.
#[derive(Debug, Args)]
pub(super) struct KeyWords {
    /// The domain whose mail it signs
    #[arg(value_name = "DOMAIN", value_parser = parse_domain)]
    pub(super) domain: Domain,
    /// The name that its record has below _domainkey and the domain
    #[arg(value_name = "SELECTOR", value_parser = parse_domain)]
    pub(super) selector: Domain,
    /// The file of the key
    #[arg(value_name = "PATH")]
    pub(super) path: PathBuf,
}

fn parse_domain(text: &str) -> Result<Domain, String> {
    Domain::parse(text).map_err(|error| error.to_string())
}

/// The words of `forget`.
#[derive(Debug, Args)]
pub(super) struct ForgetWords {
    /// The whole address, like bob@example.org
    #[arg(value_name = "ADDRESS")]
    pub(super) address: String,
}

/// The words of `explain`.
#[derive(Debug, Args)]
pub(super) struct ExplainWords {
    /// The id of a mail, a domain, an address in brackets, or a relay as HOST:PORT or HOST:PORT/MODE
    #[arg(value_name = "WHAT")]
    pub(super) what: String,
}

/// The words of `probe`.
#[derive(Debug, Args)]
pub(super) struct ProbeWords {
    /// A mail address; or a domain, an address in brackets or a relay as HOST:PORT/MODE, which is only connected to
    #[arg(value_name = "WHAT")]
    pub(super) what: String,
    /// The sender that is told; <> is the null one. Without it, that of bounces
    #[arg(long, value_name = "ADDRESS")]
    pub(super) sender: Option<String>,
    /// Ask this host only: HOST, HOST:PORT or HOST:PORT/MODE
    #[arg(long, value_name = "HOST", default_value = "", hide_default_value = true)]
    pub(super) host: String,
    /// Try this port only: 25, 25@starttls or 465@tls
    #[arg(long, value_name = "PORT", default_value = "", hide_default_value = true)]
    pub(super) port: String,
}

/// Which mail an order is about.
#[derive(Debug, Args)]
pub(super) struct Target {
    #[command(flatten)]
    pub(super) selection: Selection,
    /// All mail
    #[arg(long)]
    pub(super) all: bool,
    /// Do not ask before more than one mail is changed
    #[arg(long)]
    pub(super) yes: bool,
}

/// Mail that goes to one place or comes from one sender, also what comes later.
#[derive(Debug, Args)]
pub(super) struct Rule {
    /// Mail to the hosts of this domain or by this relay, also what comes later
    #[arg(long, value_name = "DESTINATION", conflicts_with = "from")]
    pub(super) destination: Option<Destination>,
    /// Mail from this address, from a domain (@example.org), or with a null sender (<>), also what comes later
    #[arg(long, value_name = "SENDER")]
    pub(super) from: Option<AddressPattern>,
}

/// The words of `retry`.
#[derive(Debug, Args)]
pub(super) struct RetryWords {
    /// Delete the failures of the mail first, as if it had never been tried
    #[arg(long)]
    pub(super) forget: bool,
    #[command(flatten)]
    pub(super) target: Target,
}

/// The words of `hold`.
#[derive(Debug, Args)]
pub(super) struct HoldWords {
    /// Why, for people
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
    /// When the hold ends by itself: in a span like 2h or 5d, or at a time like 2026-11-30 or "2026-11-30 14:00"
    #[arg(long, value_name = "TIME")]
    pub(super) until: Option<Since>,
    #[command(flatten)]
    pub(super) rule: Rule,
    #[command(flatten)]
    pub(super) target: Target,
}

/// The words of `release`.
#[derive(Debug, Args)]
pub(super) struct ReleaseWords {
    #[command(flatten)]
    pub(super) rule: Rule,
    #[command(flatten)]
    pub(super) target: Target,
}

/// The words of `fail`.
#[derive(Debug, Args)]
pub(super) struct FailWords {
    /// Why; the bounce says it too
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
    #[command(flatten)]
    pub(super) target: Target,
}

/// The words of `drop`.
#[derive(Debug, Args)]
pub(super) struct DropWords {
    #[command(flatten)]
    pub(super) target: Target,
}

/// The words of `redirect`.
#[derive(Debug, Args)]
#[command(mut_arg("remote", |arg| arg
    .help("The relay by which the mail goes from now on: HOST, HOST:PORT or HOST:PORT/MODE")
    .required_unless_present("mx")))]
pub(super) struct RedirectWords {
    #[command(flatten)]
    pub(super) target: Target,
    /// Send the mail to the hosts of its domain
    #[arg(long, conflicts_with = "remote")]
    pub(super) mx: bool,
}

/// The words of `list`.
#[derive(Debug, Default, Args)]
pub(super) struct ListWords {
    #[command(flatten)]
    pub(super) selection: Selection,
}

/// The words of `summary`.
#[derive(Debug, Args)]
pub(super) struct SummaryWords {
    /// What a row counts
    #[arg(long, value_name = "WHAT", default_value = "domain")]
    pub(super) by: By,
    /// Count only mail that was tried and has failed
    #[arg(long)]
    pub(super) deferred: bool,
    #[command(flatten)]
    pub(super) selection: Selection,
}

/// What a row of the summary counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum By {
    /// The mail to a domain
    Domain,
    /// The mail that goes by a relay
    Remote,
    /// The mail of a sender
    Sender,
    /// The mail whose last failure has a status, or a reply code where there is none
    Status,
}

/// The words of `show`.
#[derive(Debug, Args)]
pub(super) struct ShowWords {
    /// The ids of mails
    #[arg(value_name = "ID", required = true)]
    pub(super) ids: Vec<i64>,
}

/// The words of `history`.
#[derive(Debug, Args)]
pub(super) struct HistoryWords {
    /// Only what happened since then: a span like 2h or 5d, or a time like 2026-11-30 or "2026-11-30 14:00"
    #[arg(long, value_name = "TIME")]
    pub(super) since: Option<Since>,
    /// Only attempts and ends with this result
    #[arg(long, value_name = "RESULT")]
    pub(super) result: Option<ResultWord>,
    /// Only what a server has taken under this queue id of its own
    #[arg(long, value_name = "ID")]
    pub(super) remote_id: Option<String>,
    #[command(flatten)]
    pub(super) selection: Selection,
}

/// What became of an attempt, or of a mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ResultWord {
    /// A server has taken it
    Delivered,
    /// It is tried again
    Deferred,
    /// It is not tried again
    Failed,
    /// The server may have taken it
    Uncertain,
    /// It was returned to its sender
    Bounced,
    /// It was given up without a bounce
    Dropped,
    /// It was given up because of its age
    Expired,
    /// An order has removed it
    Removed,
    /// Its sender was told of the delivery, because the server does not tell
    Relayed,
}

impl ResultWord {
    /// Returns the value of the column.
    pub(super) fn as_str(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// The words of `trace`.
#[derive(Debug, Args)]
pub(super) struct TraceWords {
    /// Only conversations for the mail of this domain or address, or of this relay as HOST, HOST:PORT or HOST:PORT/MODE
    #[arg(value_name = "DESTINATION")]
    pub(super) destination: Option<String>,
    /// Show mail data too, and not only their size
    #[arg(long)]
    pub(super) data: bool,
}

/// The words of `replay`.
#[derive(Debug, Args)]
pub(super) struct ReplayWords {
    /// The records
    #[arg(value_name = "FILE", required = true)]
    pub(super) files: Vec<PathBuf>,
}

/// The words of `submit`.
#[derive(Debug, Args)]
#[command(
    override_usage = "cmail-admin-queue submit [-t] [-i] [-v] [-f SENDER] [-F NAME] [-N EVENTS] [-R PART] [-V ID] [-C CONFIG] [RECIPIENT]..."
)]
pub(super) struct SubmitWords {
    /// -t: recipients are also in the header; -i, -oi: a lone dot does not end the message; -f, -r: the sender; -F: its name; -v: tell the id
    /// of each mail; -C: the configuration; -bp: list; -N: of what the sender is told: never, or success, failure, delay with commas between;
    /// -R: what of the message a bounce returns: full or hdrs; -V: an id of your own for the reports; -bm, -q, -o, -B and other options of
    /// sendmail are accepted and change nothing
    #[arg(value_name = "WORD", allow_hyphen_values = true, trailing_var_arg = true)]
    pub(super) words: Vec<OsString>,
}
