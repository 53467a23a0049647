//! The command line.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is what the program is for")]

use std::fs;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use crate::dialogue::Dialogue;
use crate::mutation::Mutation;
use crate::options::Options;
use crate::swarm::{self, Summary};

/// Hours with faults, unless told otherwise.
const DEFAULT_HOURS: u32 = 24;

const USAGE: &str = "usage: cmail-delivery-sim swarm --seeds N [--start S] [--hours H] [--threads T]
       cmail-delivery-sim run SEED|FILE [--hours H] [-v]
       cmail-delivery-sim replay FILE...";

/// Runs the program with these arguments.
pub fn run(arguments: impl Iterator<Item = String>) -> ExitCode {
    let arguments: Vec<String> = arguments.collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["swarm", options @ ..] => Arguments::parse(options).map(|arguments| run_swarm(&arguments)),
        ["run", world, options @ ..] => Arguments::parse(options).and_then(|arguments| {
            let (seed, options) = world_of(world, arguments.hours)?;
            Ok(run_one(seed, options, &arguments))
        }),
        ["replay", files @ ..] if !files.is_empty() => Ok(replay_files(files)),
        _ => Err(USAGE.to_owned()),
    };
    result.unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::from(2)
    })
}

/// The options of the command line.
#[derive(Debug)]
struct Arguments {
    seeds: u64,
    start: u64,
    hours: u32,
    threads: usize,
    verbose: bool,
}

impl Arguments {
    fn parse(words: &[&str]) -> Result<Self, String> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let mut arguments =
            Self { seeds: 100, start: 0, hours: DEFAULT_HOURS, threads: cores, verbose: false };
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            if word == "-v" {
                arguments.verbose = true;
                continue;
            }
            let value = words.next().ok_or_else(|| format!("{word} needs a value\n{USAGE}"))?;
            let number: u64 = value.parse().map_err(|error| format!("{word} {value}: {error}"))?;
            match word {
                "--seeds" => arguments.seeds = number,
                "--start" => arguments.start = number,
                "--hours" => {
                    arguments.hours = u32::try_from(number).map_err(|error| error.to_string())?.max(1)
                }
                "--threads" => arguments.threads = usize::try_from(number).unwrap_or(1).max(1),
                _ => return Err(format!("unknown option {word}\n{USAGE}")),
            }
        }
        Ok(arguments)
    }
}

/// The total of all threads.
#[derive(Debug, Default)]
struct Progress {
    next: AtomicU64,
    done: AtomicU64,
    virtual_seconds: AtomicU64,
    mails: AtomicU64,
    must_stop: AtomicBool,
    failed: Mutex<Option<Summary>>,
}

impl Progress {
    fn work(&self, arguments: &Arguments, begin: Instant) {
        while !self.must_stop.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= arguments.seeds {
                return;
            }
            let summary = swarm::run_seed(arguments.start.wrapping_add(number), arguments.hours);
            let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
            self.virtual_seconds.fetch_add(summary.virtual_seconds, Ordering::Relaxed);
            self.mails.fetch_add(summary.mails, Ordering::Relaxed);
            if summary.violation.is_some() {
                self.must_stop.store(true, Ordering::Relaxed);
                self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(summary);
            }
            if done.is_multiple_of(10) || done == arguments.seeds {
                self.print(done, begin);
            }
        }
    }

    fn print(&self, done: u64, begin: Instant) {
        let hours = self.virtual_seconds.load(Ordering::Relaxed) / 3600;
        let mails = self.mails.load(Ordering::Relaxed);
        let seconds = begin.elapsed().as_secs_f64();
        eprint!("\r{done} seeds, {hours} virtual hours, {mails} mails, {seconds:.0} s   ");
    }
}

fn run_swarm(arguments: &Arguments) -> ExitCode {
    let progress = Progress::default();
    let begin = Instant::now();
    thread::scope(|scope| {
        for _ in 0..arguments.threads {
            scope.spawn(|| progress.work(arguments, begin));
        }
    });
    progress.print(progress.done.load(Ordering::Relaxed), begin);
    eprintln!();
    match progress.failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        None => ExitCode::SUCCESS,
        Some(summary) => write_report(&summary, arguments.hours),
    }
}

/// Repeats the world in which a rule was broken, makes it as simple as it can be, and writes a transcript of it.
fn write_report(summary: &Summary, hours: u32) -> ExitCode {
    let seed = summary.seed;
    eprintln!("seed {seed} with --hours {hours}: {}", summary.violation.as_deref().unwrap_or_default());
    eprintln!("shrinking it ...");
    let file = format!("violation-{seed}.smtp");
    let Some(report) = swarm::report(seed, hours, Mutation::None, &file) else {
        eprintln!("it did not happen again: the simulation is not deterministic");
        return ExitCode::FAILURE;
    };
    let found = swarm::describe(&report.violation);
    let how = if report.replays { "replays" } else { "does not show it by itself, its world does" };
    match fs::write(&file, &report.text) {
        Ok(()) => eprintln!("{found}\nwritten to {file}, which {how}"),
        Err(error) => eprintln!("{found}\ncannot write {file}: {error}\n{}", report.text),
    }
    ExitCode::FAILURE
}

/// Returns the world of a seed, or the one in a file of [`write_report`].
fn world_of(seed_or_file: &str, hours: u32) -> Result<(u64, Options), String> {
    if let Ok(seed) = seed_or_file.parse() {
        return Ok((seed, swarm::options_of(seed, hours)));
    }
    let text = fs::read_to_string(seed_or_file)
        .map_err(|error| format!("\"{seed_or_file}\" is no seed, and no file that can be read: {error}"))?;
    swarm::read_world(&text).map_err(|error| format!("{seed_or_file}: {error}"))
}

fn run_one(seed: u64, options: Options, arguments: &Arguments) -> ExitCode {
    println!("seed {seed}\n{options}");
    let dialogue = if arguments.verbose { Dialogue::Kept(String::new()) } else { Dialogue::Off };
    let outcome = swarm::run_options(seed, options, Mutation::None, dialogue);
    let summary = swarm::summary(seed, &outcome);
    let (accounts, counts) = (outcome.witness.accounts().join("\n"), outcome.witness.counts);
    println!("{}{counts:#?}\n{accounts}", outcome.witness.dialogue.into_text());
    println!("{summary:#?}");
    if summary.violation.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Replays transcripts, and reports where the observed lines differ from the written ones.
fn replay_files(files: &[&str]) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for file in files {
        let result = fs::read_to_string(file).map_err(|error| error.to_string()).and_then(|text| {
            Ok((crate::transcript::replay(&text).map_err(|error| error.to_string())?, text))
        });
        match result {
            Ok((observed, text)) if observed == text => println!("{file}: as it is written"),
            Ok((observed, _)) => {
                println!("{file}: otherwise than it is written; this is observed:\n{observed}");
                code = ExitCode::FAILURE;
            }
            Err(error) => {
                println!("{file}: {error}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
