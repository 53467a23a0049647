//! Each checker is shown a build that is wrong in its way, and must be the one that says so; and none says anything of
//! the build that is right.

use crate::dialogue::Dialogue;
use crate::mutation::Mutation;
use crate::options::{Faults, Options};
use crate::swarm::{options_of, run_options};
use crate::witness::{Violation, Witness};

/// Hours of faults in each world.
const HOURS: u32 = 3;
/// Worlds that are tried until one shows the error.
const WORLDS: u64 = 200;

/// Returns which checkers object to a build, in how many worlds.
fn objections(mutation: Mutation) -> Vec<&'static str> {
    let mut objections = Vec::new();
    for seed in 0..WORLDS {
        let options = options_of(seed, HOURS);
        // Who waits for silent servers shows other errors later.
        let faults = Faults { mute_servers: 0, dns_silences: 0, ..options.faults };
        let options = Options { dns_drops_edns: false, dns_attempts: 2, faults, ..options };
        let outcome = run_options(seed, options, mutation, Dialogue::Off);
        objections.extend(outcome.witness.violation.map(|violation| violation.checker));
        if objections.len() > 4 {
            break;
        }
    }
    objections
}

fn assert_caught(mutation: Mutation, checker: &str) {
    let objections = objections(mutation);
    assert!(objections.contains(&checker), "{mutation:?} is objected to by {objections:?}");
}

/// Returns what the checkers say of a build in worlds whose settings change.
fn violations_by_changes(mutation: Mutation) -> Vec<Violation> {
    let mut violations = Vec::new();
    for seed in 0..WORLDS {
        let options = options_of(seed, HOURS);
        let faults = Faults { reconfigurations: 3000, mute_servers: 0, dns_silences: 0, ..options.faults };
        let options = Options { dns_drops_edns: false, dns_attempts: 2, faults, ..options };
        let outcome = run_options(seed, options, mutation, Dialogue::Off);
        violations.extend(outcome.witness.violation);
        // Many rules are about settings.
        if violations.len() > 20 {
            break;
        }
    }
    violations
}

#[test]
fn settings_that_change_break_no_rule() {
    assert_eq!(violations_by_changes(Mutation::None), Vec::new());
}

#[test]
fn a_build_that_keeps_the_settings_of_its_start_is_noticed() {
    let violations = violations_by_changes(Mutation::KeepsSettings);
    let rules = ["the limits of connections are kept", "retryinterval and retries are kept"];
    assert!(violations.iter().any(|violation| rules.contains(&violation.checker)), "{violations:?}");
}

#[test]
fn a_build_without_error_is_objected_to_by_nobody() {
    for seed in 0..20 {
        let outcome = run_options(seed, options_of(seed, HOURS), Mutation::None, Dialogue::Off);
        assert_eq!(outcome.witness.violation, None, "seed {seed}");
    }
}

#[test]
fn mail_that_no_server_has_accepted_is_missed() {
    assert_caught(Mutation::TakesFailureForSuccess, "nothing is lost");
}

#[test]
fn mail_that_is_sent_again_after_its_reply_is_noticed() {
    assert_caught(Mutation::MissesFinalReply, "nothing is duplicated");
}

#[test]
fn mail_that_is_sent_before_it_is_noted_is_noticed() {
    assert_caught(Mutation::SendsUnnoted, "mail is noted before it is sent");
}

#[test]
fn too_much_mail_that_is_noted_is_noticed() {
    assert_caught(Mutation::NotesTooMuch, "mail is noted before it is sent");
}

#[test]
fn mail_that_is_sent_again_after_a_crash_and_was_not_noted_is_noticed() {
    assert_caught(Mutation::LosesFlights, "nothing is duplicated");
}

#[test]
fn a_failure_that_is_counted_twice_is_noticed() {
    assert_caught(Mutation::CountsTwice, "what is counted has happened");
}

#[test]
fn errors_of_the_database_that_are_not_counted_are_noticed() {
    assert_caught(Mutation::ForgetsErrors, "what is counted has happened");
}

#[test]
fn a_bounce_of_a_bounce_is_noticed() {
    assert_caught(Mutation::BouncesBounces, "no bounce is bounced");
}

#[test]
fn a_bounce_with_something_of_another_mail_is_noticed() {
    assert_caught(Mutation::LeaksIntoBounces, "bounces contain only their own mail");
}

#[test]
fn too_many_connections_are_noticed() {
    assert_caught(Mutation::IgnoresConcurrency, "the limits of connections are kept");
}

#[test]
fn lines_about_destinations_that_are_not_read_are_noticed() {
    assert_caught(Mutation::IgnoresDestinationLines, "destination lines are kept");
}

#[test]
fn mail_that_goes_over_less_than_is_needed_of_tls_is_noticed() {
    for mutation in [Mutation::IgnoresTlsPolicies, Mutation::TrustsEverybody] {
        assert_caught(mutation, "no mail goes over less than is needed of TLS");
    }
}

/// Returns which checkers object to a build in worlds with DNSSEC, by these lines about destinations.
fn objections_to_dane(mutation: Mutation, destination_lines: u8) -> Vec<Violation> {
    let world = |seed| {
        let options = Options { signed: 700, destination_lines, ..options_of(seed, HOURS) };
        let faults = Faults {
            rollovers: 1000,
            impostors: 200,
            stripped: 100,
            tlsa_failures: 100,
            reconfigurations: 0,
            mute_servers: 0,
            dns_silences: 0,
            ..options.faults
        };
        Options { faults, ..options }
    };
    let outcomes = (0..30).map(|seed| run_options(seed, world(seed), mutation, Dialogue::Off));
    outcomes.filter_map(|outcome| outcome.witness.violation).collect()
}

#[test]
fn records_keys_and_impostors_break_no_rule() {
    for lines in [3, 4] {
        assert_eq!(objections_to_dane(Mutation::None, lines), Vec::new());
    }
}

#[test]
fn errors_about_what_dnssec_vouches_for_are_noticed() {
    for (mutation, rule) in [
        (Mutation::TrustsEverybody, "no mail goes over less than is needed of TLS"),
        (Mutation::BelievesNothing, "no mail goes over less than is needed of TLS"),
        (Mutation::BelievesEverything, "TLSA records are asked for where they count"),
        (Mutation::DistrustsEverybody, "a server that proves itself is spoken to"),
    ] {
        let objections = objections_to_dane(mutation, 3);
        assert!(objections.iter().any(|violation| violation.checker == rule), "{mutation:?}: {objections:?}");
    }
}

#[test]
fn signatures_that_are_missing_wrong_or_not_wanted_are_noticed() {
    for mutation in [Mutation::LosesSignatures, Mutation::SignsUnmarked, Mutation::SignsOtherMail] {
        assert_caught(mutation, "what is to be signed leaves signed");
    }
}

#[test]
fn a_bounce_that_its_sender_does_not_want_is_noticed() {
    assert_caught(Mutation::BouncesUnwanted, "nothing is lost");
}

#[test]
fn reports_of_deliveries_that_are_missing_or_not_wanted_are_noticed() {
    assert_caught(Mutation::NeverReports, "senders are told what they want");
    assert_caught(Mutation::ReportsAlways, "senders are told what they want");
}

#[test]
fn wishes_that_are_not_passed_on_are_noticed() {
    assert_caught(Mutation::KeepsWishes, "senders are told what they want");
}

#[test]
fn limits_of_servers_that_are_not_read_are_noticed() {
    assert_caught(Mutation::IgnoresServerLimits, "the limits that servers announce are kept");
}

#[test]
fn a_hosts_file_that_is_not_read_is_noticed() {
    assert_caught(Mutation::IgnoresHostsFile, "the hosts file is for handoff names");
}

#[test]
fn a_hosts_file_that_is_not_read_again_is_noticed() {
    assert_caught(Mutation::KeepsHostsFile, "the hosts file is for handoff names");
}

#[test]
fn a_hosts_file_that_is_used_for_domains_is_noticed() {
    assert_caught(Mutation::UsesHostsFileForDomains, "the hosts file is for handoff names");
}

#[test]
fn an_attempt_that_comes_too_early_is_noticed() {
    assert_caught(Mutation::RetriesEarly, "retryinterval and retries are kept");
}

#[test]
fn an_attempt_before_its_time_that_counts_is_noticed() {
    assert_caught(Mutation::CountsEarlyAttempts, "retryinterval and retries are kept");
}

#[test]
fn mail_that_is_charged_without_a_look_at_what_it_is_now_is_noticed() {
    assert_caught(Mutation::ChargesUnread, "whoever changes mail meanwhile wins");
}

#[test]
fn an_order_that_counts_twice_is_noticed() {
    assert_caught(Mutation::KeepsOrders, "retryinterval and retries are kept");
}

#[test]
fn held_mail_that_is_sent_is_noticed() {
    assert_caught(Mutation::IgnoresHolds, "orders are carried out once");
}

#[test]
fn lines_that_hold_mail_and_are_not_read_are_noticed() {
    assert_caught(Mutation::IgnoresHoldLines, "hold lines are kept");
}

#[test]
fn mail_that_is_given_up_for_its_age_before_its_release_is_noticed() {
    assert_caught(Mutation::ForgetsReleases, "nothing is lost");
}

#[test]
fn orders_that_are_not_looked_for_at_the_start_are_noticed() {
    assert_caught(Mutation::ComesToOrdersLate, "orders of before the start come first");
}

#[test]
fn an_order_on_mail_under_way_is_noticed() {
    assert_caught(Mutation::OrdersMailUnderWay, "orders are carried out once");
}

#[test]
fn mail_that_an_order_passes_over_is_noticed() {
    assert_caught(Mutation::SkipsMail, "orders are carried out once");
}

#[test]
fn an_order_that_is_carried_out_twice_is_noticed() {
    assert_caught(Mutation::RepeatsOrders, "orders are carried out once");
}

#[test]
fn mail_that_does_not_rest_is_noticed() {
    assert_caught(Mutation::NeverRests, "retryinterval and retries are kept");
}

#[test]
fn warnings_at_the_wrong_time_or_never_are_noticed() {
    for mutation in [Mutation::WarnsAlways, Mutation::NeverWarns] {
        assert_caught(mutation, "whoever sent late mail is told once at each age");
    }
}

#[test]
fn retry_rules_that_are_not_read_are_noticed() {
    // Mail is given up that a rule would keep.
    assert_caught(Mutation::IgnoresRetryRules, "nothing is lost");
}

#[test]
fn an_attempt_too_many_is_noticed() {
    assert_caught(Mutation::TriesTooOften, "retryinterval and retries are kept");
}

#[test]
fn a_command_before_the_reply_to_the_last_is_noticed() {
    assert_caught(Mutation::Pipelines, "commands are in order");
}

#[test]
fn a_command_behind_one_that_has_to_be_last_is_noticed() {
    assert_caught(Mutation::PipelinesPastData, "commands are in order");
}

#[test]
fn clear_text_after_a_promise_of_tls_is_noticed() {
    assert_caught(Mutation::SkipsTls, "nothing in clear text after a promise of TLS");
}

#[test]
fn clear_text_where_a_smaller_handshake_was_not_tried_is_noticed() {
    assert_caught(Mutation::AlwaysLargeHello, "nothing in clear text after a promise of TLS");
}

#[test]
fn a_secret_in_the_log_is_noticed() {
    assert_caught(Mutation::LogsSecrets, "no secret is shown");
}

#[test]
fn mail_that_is_remembered_for_ever_is_noticed() {
    assert_caught(Mutation::HoardsRows, "memory is bounded");
}

#[test]
fn an_attempt_that_does_not_tell_how_it_went_is_noticed() {
    assert_caught(Mutation::ForgetsCourse, "each delivery tells how it went");
}

#[test]
fn mail_that_is_given_up_and_not_released_is_noticed() {
    assert_caught(Mutation::KeepsHolding, "what is held is given back once");
}

/// Returns what becomes of a build in worlds where servers and name servers fall silent, and nothing else happens.
fn silent_worlds(mutation: Mutation) -> impl Iterator<Item = Witness> {
    let faults = Faults { mute_servers: 900, dns_silences: 3000, ..Faults::default() };
    let world = move |seed| Options {
        messages_per_hour: 200,
        recipients: 1,
        relays: 20,
        zones: 40,
        concurrency: 4,
        destination_concurrency: 2,
        host_concurrency: 4,
        connection_idle_s: 0,
        rate_per_minute: 0,
        faults: faults.clone(),
        ..options_of(seed, 1)
    };
    (0..10).map(move |seed| run_options(seed, world(seed), mutation, Dialogue::Kept(String::new())).witness)
}

/// Returns how often a checker has noticed mail that waits because of a build. Each time nothing was done about that mail.
fn times_noticed_waiting(mutation: Mutation, checker: &str) -> usize {
    let mut times = 0;
    for Witness { violation, dialogue, .. } in silent_worlds(mutation) {
        let Some(violation) = violation.filter(|violation| violation.checker == checker) else { continue };
        let words: Vec<&str> = violation.text.split(' ').collect();
        let ["mail", id, "to", address, "has", "waited", ..] = words[..] else { panic!("{violation:?}") };
        let dialogue = dialogue.into_text();
        let (_, since) = dialogue.split_once(&format!("= {id} submitted\n")).unwrap();
        for sign in [format!("log: mail {id} "), format!(" {id} deferred"), format!("connects to {address}:")]
        {
            assert!(!since.contains(&sign), "{violation:?} although {sign:?}");
        }
        times += 1;
    }
    times
}

#[test]
fn nobody_waits_in_vain_for_servers_that_say_nothing() {
    let mut violations = silent_worlds(Mutation::None).filter_map(|witness| witness.violation);
    assert_eq!(violations.next(), None);
}

#[test]
fn mail_that_waits_for_name_servers_without_need_is_noticed() {
    let times = times_noticed_waiting(Mutation::WaitsForDns, "mail without DNS never waits for DNS");
    assert!(times >= 3, "{times}");
}

#[test]
fn silent_servers_that_hold_the_places_of_others_are_noticed() {
    let checker = "mail that could be served waits at most a bound";
    let times = times_noticed_waiting(Mutation::ClingsToSilence, checker);
    assert!(times >= 3, "{times}");
}

/// Objections to a build in worlds where connections are used for many messages, and nothing happens to them.
fn objections_to_blame(mutation: Mutation) -> Vec<Violation> {
    let world = |seed| Options {
        messages_per_hour: 300,
        recipients: 1,
        zones: 10,
        connection_idle_s: 300,
        rate_per_minute: 0,
        faults: Faults { odd_servers: 1000, ..Faults::default() },
        ..options_of(seed, 1)
    };
    let outcomes = (0..20).map(|seed| run_options(seed, world(seed), mutation, Dialogue::Off));
    outcomes.filter_map(|outcome| outcome.witness.violation).collect()
}

#[test]
fn limits_of_connections_are_blamed_on_no_mail() {
    assert_eq!(objections_to_blame(Mutation::None), Vec::new());
}

#[test]
fn a_failure_of_mail_because_of_a_limit_of_connections_is_noticed() {
    let objections = objections_to_blame(Mutation::BlamesMail);
    let rule = "a limit of connections costs no mail a failure";
    assert!(objections.iter().any(|violation| violation.checker == rule), "{objections:?}");
}

/// Objections to a build in worlds where the database can do nothing for some rows.
fn objections_to_poison(mutation: Mutation) -> Vec<&'static str> {
    let faults =
        Faults { poison: 60, refusals: 100, odd_servers: 300, store_failures: 50, ..Faults::default() };
    let world = |seed| Options { messages_per_hour: 60, faults: faults.clone(), ..options_of(seed, HOURS) };
    let outcomes = (0..20).map(|seed| run_options(seed, world(seed), mutation, Dialogue::Off));
    outcomes.filter_map(|outcome| outcome.witness.violation.map(|violation| violation.checker)).collect()
}

#[test]
fn a_poisoned_row_costs_only_itself() {
    assert_eq!(objections_to_poison(Mutation::None), Vec::<&str>::new());
}

#[test]
fn a_poisoned_row_that_stops_all_others_is_noticed() {
    let objections = objections_to_poison(Mutation::StopsAtPoison);
    assert!(objections.contains(&"one poisoned row costs only itself"), "{objections:?}");
}

#[test]
fn an_explanation_that_is_wrong_is_noticed() {
    for mutation in
        [Mutation::ForetellsLate, Mutation::Miscounts, Mutation::MisordersHosts, Mutation::ProbesWithData]
    {
        assert_caught(mutation, "what is explained is so");
    }
}

#[test]
fn mail_that_is_never_looked_at_is_noticed() {
    assert_caught(Mutation::FallsAsleep, "what can be delivered is delivered");
}
