use super::*;
use crate::transcript::parse;

/// Hours of faults.
const HOURS: u32 = 3;

/// The report of the first seed in which this rule is broken.
fn report_of(mutation: Mutation, checker: &str) -> Report {
    let breaks = |seed: &u64| {
        let outcome = run_options(*seed, options_of(*seed, HOURS), mutation, Dialogue::Off);
        outcome.witness.violation.is_some_and(|violation| violation.checker == checker)
    };
    let seed = (0..60).find(breaks).expect("no world shows the error");
    report(seed, HOURS, mutation, "violation.smtp").expect("it did not happen again")
}

fn assert_is_shown_again(report: &Report, mutation: Mutation) {
    parse(&report.text).expect("the report is no transcript");
    let (seed, options) = read_world(&report.text).unwrap();
    let again = run_options(seed, options, mutation, Dialogue::Off).witness.violation;
    assert_eq!(again.as_ref(), Some(&report.violation), "{}", report.text);
    if report.replays {
        let (observed, violation) = replay_build(&report.text, mutation).unwrap();
        assert_eq!(observed, report.text);
        assert_eq!(violation.map(|violation| violation.checker), Some(report.violation.checker));
        let (_, violation) = replay_build(&report.text, Mutation::None).unwrap();
        assert_eq!(violation, None, "{}", report.text);
    }
}

fn given_lines(report: &Report) -> usize {
    let is_given = |line: &&str| ["S:", "S|", "+", "!"].iter().any(|verb| line.starts_with(verb));
    report.text.lines().filter(is_given).count()
}

#[test]
fn a_lost_mail_becomes_a_short_transcript_that_loses_it_again() {
    let mutation = Mutation::TakesFailureForSuccess;
    let report = report_of(mutation, "nothing is lost");
    assert!(report.replays, "{}", report.text);
    assert!(given_lines(&report) <= 6, "{}", report.text);
    assert_is_shown_again(&report, mutation);
}

#[test]
fn a_command_out_of_order_becomes_a_short_transcript() {
    let mutation = Mutation::Pipelines;
    let report = report_of(mutation, "commands are in order");
    assert!(report.replays, "{}", report.text);
    assert!(given_lines(&report) <= 6, "{}", report.text);
    assert_is_shown_again(&report, mutation);
}

#[test]
fn what_takes_several_connections_at_once_is_shown_by_its_world() {
    let mutation = Mutation::IgnoresConcurrency;
    let report = report_of(mutation, "the limits of connections are kept");
    assert_is_shown_again(&report, mutation);
}
