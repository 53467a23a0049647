//! What connections send next is noted before, and names after a kill which mail may have arrived already.

use super::*;
use crate::flight::FLIGHT_LIMIT_MESSAGES;

fn noting() -> Settings {
    Settings { uncertain: Uncertain::Retry, ..settings() }
}

fn one_connection() -> Settings {
    let ports = [Port { number: 25, tls: TlsMode::Plain }].into();
    Settings { policy: Policy { concurrency: 1, ports, ..noting().policy }, ..noting() }
}

fn holding() -> Settings {
    Settings { uncertain: Uncertain::Hold, ..settings() }
}

fn asked(world: &World, kind: &str) -> u32 {
    world.outbox.asked.get(kind).copied().unwrap_or(0)
}

/// A world in which a server has got a message whole and has not answered.
fn with_mail_in_doubt() -> (World, i64) {
    let mut world = World::with(noting(), Mode::Daemon);
    world.domain("example.org", "192.0.2.1").next.push_back(Behaviour::on(".", "hang"));
    let id = world.mail(SENDER, "a@example.org", "x");
    world.run_for(Duration::from_secs(30));
    assert_eq!(world.server("192.0.2.1").count("DATA"), 1);
    (world, id)
}

#[test]
fn a_transaction_begins_only_when_its_mail_is_noted() {
    let mut world = World::with(noting(), Mode::Daemon);
    world.domain("example.org", "192.0.2.1");
    world.slow.insert("mark", Duration::from_secs(10));
    world.mail(SENDER, "a@example.org", "x");
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.server("192.0.2.1").count("MAIL"), 0);
    world.run();
    assert_eq!(world.server("192.0.2.1").accepted.len(), 1);
    assert_eq!((asked(&world, "mark"), asked(&world, "commit")), (1, 1), "the verdict ends the flight");
    assert_eq!(world.outbox.noted(), Vec::<Vec<i64>>::new());
}

#[test]
fn a_busy_connection_needs_no_commits_of_its_own() {
    let mut world = World::with(one_connection(), Mode::Daemon);
    world.domain("example.org", "192.0.2.1");
    for number in 0..300 {
        world.mail(SENDER, "a@example.org", &format!("{number}"));
    }
    world.run();
    assert_eq!(world.server("192.0.2.1").accepted.len(), 300);
    // The first of each batch that was claimed when none was left.
    assert!(asked(&world, "mark") <= 10, "{:?}", world.outbox.asked);
}

#[test]
fn no_more_than_so_many_messages_of_a_connection_are_noted() {
    let mut world = World::with(one_connection(), Mode::Daemon);
    world.domain("example.org", "192.0.2.1");
    for number in 0..100 {
        world.mail(SENDER, "a@example.org", &format!("{number}"));
    }
    world.slow.insert("commit", Duration::from_millis(20));
    world.input(Input::OutboxChanged);
    let mut most = 0;
    for _ in 0..2000 {
        world.run_for(Duration::from_millis(1));
        most = most.max(world.outbox.noted().concat().len());
    }
    assert_eq!(most, FLIGHT_LIMIT_MESSAGES);
    world.run();
    assert!(world.outbox.mails.is_empty());
}

#[test]
fn mail_that_is_read_again_because_others_write_stays_noted() {
    let mut world = World::with(one_connection(), Mode::Daemon);
    world.domain("example.org", "192.0.2.1");
    for number in 0..10 {
        world.mail(SENDER, "a@example.org", &format!("{number}"));
    }
    while !world.outbox.mails.is_empty() {
        world.outbox.data_version += 1;
        world.input(Input::OutboxChanged);
        world.run_for(Duration::from_micros(700));
        assert!(world.now.monotonic < Instant::from_micros(60_000_000), "it never comes to sending");
    }
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.server("192.0.2.1").accepted.len(), 10);
    assert_eq!(asked(&world, "mark"), 1, "{:?}", world.outbox.asked);
}

#[test]
fn mail_that_goes_back_to_the_queue_is_noted_no_longer() {
    let mut world = World::with(one_connection(), Mode::Daemon);
    world.domain("example.org", "192.0.2.1").usual = Behaviour::on("MAIL", "drop");
    for number in 0..5 {
        world.mail(SENDER, "a@example.org", &format!("{number}"));
    }
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.outbox.noted(), Vec::<Vec<i64>>::new());
}

#[test]
fn a_database_that_cannot_note_is_asked_again_each_second() {
    let mut world = World::with(noting(), Mode::Daemon);
    world.domain("example.org", "192.0.2.1");
    world.outbox.failing.insert("mark", 5);
    world.mail(SENDER, "a@example.org", "x");
    world.run_for(Duration::from_secs(4));
    assert_eq!((asked(&world, "mark"), world.server("192.0.2.1").count("MAIL")), (4, 0));
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.server("192.0.2.1").accepted.len(), 1, "{}", world.notes());
}

#[test]
fn mail_begins_again_where_nothing_is_left_of_what_could_not_be_noted() {
    let mut world = World::with(one_connection(), Mode::Daemon);
    world.domain("example.org", "192.0.2.1");
    world.outbox.failing.insert("mark", 2);
    world.mail(SENDER, "a@example.org", "x");
    world.run_for(Duration::from_millis(500));
    assert_eq!(asked(&world, "mark"), 1);
    // The connection ends, so that its mail need not be noted.
    world.input(Input::Settings(Box::new(noting())));
    world.run_for(Duration::from_secs(1));
    assert_eq!((asked(&world, "mark"), world.server("192.0.2.1").open.len()), (2, 0));
    assert_eq!(world.outbox.failing["mark"], 0);
    world.mail(SENDER, "b@example.org", "y");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.server("192.0.2.1").recipients().len(), 2, "{}", world.notes());
}

#[test]
fn without_notes_nothing_is_written_before_mail_is_sent() {
    let mut world = World::with(Settings { uncertain: Uncertain::Off, ..settings() }, Mode::Daemon);
    world.domain("example.org", "192.0.2.1");
    world.mail(SENDER, "a@example.org", "x");
    world.run();
    assert_eq!((asked(&world, "mark"), asked(&world, "recover"), asked(&world, "commit")), (0, 0, 1));
}

#[test]
fn after_a_kill_mail_that_may_have_arrived_is_named_and_sent_again() {
    let (mut world, id) = with_mail_in_doubt();
    let other = world.mail(SENDER, "b@[192.0.2.9]", "x");
    world.restart_with(noting());
    world.run_for(Duration::from_secs(30));
    let told = format!(
        "1 mail to example.org at 192.0.2.1:25 may have arrived already, because the program ended before it knew the answer: {id};"
    );
    assert!(world.notes().contains(&told), "{}", world.notes());
    assert!(world.outbox.mails.contains_key(&other), "nobody is suspected who was not sent");
    assert_eq!(world.server("192.0.2.1").accepted.len(), 1);
    assert_eq!(world.outbox.noted(), Vec::<Vec<i64>>::new());
}

#[test]
fn kills_in_a_row_name_the_mail_each_time_until_it_is_decided() {
    let (mut world, id) = with_mail_in_doubt();
    for _ in 0..3 {
        world.restart_with(noting());
        world.events.clear();
        world.run_for(Duration::from_millis(1));
        assert!(world.notes().contains(&format!("before it knew the answer: {id};")), "{}", world.notes());
    }
    world.run_for(Duration::from_secs(30));
    assert!(world.outbox.mails.is_empty());
    world.restart_with(noting());
    world.events.clear();
    world.run_for(Duration::from_secs(30));
    assert!(!world.notes().contains("may have arrived"), "{}", world.notes());
}

#[test]
fn mail_that_may_have_arrived_goes_to_the_same_server_first() {
    let mut world = World::with(noting(), Mode::Daemon);
    world.exchange("example.org", 10, "a.example", "192.0.2.1").usual = Behaviour::connect(Connect::Refused);
    world.exchange("example.org", 20, "b.example", "192.0.2.2").next.push_back(Behaviour::on(".", "hang"));
    world.mail(SENDER, "a@example.org", "x");
    world.run_for(Duration::from_secs(30));
    world.server("192.0.2.1").usual = Behaviour::default();
    world.restart_with(noting());
    world.attempts.clear();
    world.run_for(Duration::from_secs(30));
    let order: Vec<SocketAddr> = world.attempts.iter().map(|&(_, to)| to).collect();
    assert_eq!(order, [world::address("192.0.2.2:25")]);
    // What comes later goes as ever.
    world.run_for(Duration::from_secs(60));
    world.mail(SENDER, "b@example.org", "y");
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.server("192.0.2.1").recipients(), ["b@example.org"]);
}

#[test]
fn a_server_that_is_gone_keeps_mail_that_may_have_arrived_from_no_other() {
    let (mut world, _) = with_mail_in_doubt();
    world.exchange("example.org", 20, "b.example", "192.0.2.2");
    world.server("192.0.2.1").usual = Behaviour::connect(Connect::Refused);
    world.server("192.0.2.1").next.clear();
    world.restart_with(noting());
    world.run_for(Duration::from_secs(30));
    assert_eq!(world.server("192.0.2.2").accepted.len(), 1);
}

#[test]
fn after_a_kill_mail_that_may_have_arrived_is_held_if_that_is_wanted() {
    let (mut world, id) = with_mail_in_doubt();
    let other = world.mail(SENDER, "b@example.org", "y");
    world.restart_with(holding());
    world.run_for(Duration::from_secs(7200));
    assert!(world.outbox.mails[&id].hold.is_held());
    assert!(!world.outbox.mails.contains_key(&other));
    assert!(world.notes().contains("held until released, failed or dropped"), "{}", world.notes());
    assert_eq!(world.outbox.noted(), Vec::<Vec<i64>>::new(), "that it is held is enough");
}

#[test]
fn mail_whose_connection_is_lost_behind_the_message_is_held_if_that_is_wanted() {
    let mut world = World::with(holding(), Mode::Daemon);
    world.domain("example.org", "192.0.2.1").next.push_back(Behaviour::on(".", "drop"));
    let id = world.mail(SENDER, "a@example.org", "x");
    world.run_for(Duration::from_secs(3600 * 24 * 7));
    assert_eq!((world.failures(id).len(), world.outbox.mails[&id].hold.is_held()), (0, true));
    assert_eq!(world.kinds(id), [FailureKind::Held]);
    assert_eq!(world.server("192.0.2.1").accepted.len(), 0);
}

#[test]
fn an_early_attempt_whose_outcome_is_unknown_holds_the_mail_too() {
    let mut world = World::with(holding(), Mode::Daemon);
    world.domain("example.org", "192.0.2.1").usual = Behaviour::on(".", "drop");
    let id = world.mail(SENDER, "a@example.org", "x");
    world.failed_before(id, 1, 60, false);
    world.run_for(Duration::from_secs(5));
    world.input(Input::TryNow);
    world.run_for(Duration::from_secs(60));
    assert_eq!((world.failures(id).len(), world.outbox.mails[&id].hold.is_held()), (1, true));
}

#[test]
fn mail_that_a_drain_abandons_behind_the_message_stays_noted() {
    let mut world = World::with(one_connection(), Mode::Daemon);
    world.domain("example.org", "192.0.2.1").next.push_back(Behaviour::on(".", "hang"));
    let ids: Vec<i64> =
        (0..5).map(|number| world.mail(SENDER, "a@example.org", &format!("{number}"))).collect();
    world.run_for(Duration::from_secs(5));
    world.input(Input::Drain);
    world.run_for(Duration::from_secs(6));
    assert!(world.drained_at.is_some());
    assert_eq!(world.outbox.noted(), [[ids[0]]]);
    world.restart_with(noting());
    world.run_for(Duration::from_secs(60));
    assert!(world.notes().contains(&format!("before it knew the answer: {};", ids[0])), "{}", world.notes());
    assert!(world.outbox.mails.is_empty());
}

#[test]
fn a_pass_of_one_shot_notes_and_finds_mail_too() {
    let (mut world, id) = with_mail_in_doubt();
    let mode = Mode::Deliver(Selection::Domain(NextHop::Domain(Domain::parse("example.org").unwrap())));
    let outbox = core::mem::take(&mut world.outbox);
    let mut pass = World::with(noting(), mode);
    pass.outbox = outbox;
    let held = pass.outbox.held();
    pass.outbox.release(&held);
    pass.domain("example.org", "192.0.2.1");
    pass.run_for(Duration::from_secs(60));
    assert!(pass.notes().contains(&format!("before it knew the answer: {id};")), "{}", pass.notes());
    assert!(pass.drained_at.is_some() && pass.outbox.mails.is_empty());
    assert_eq!(pass.outbox.noted(), Vec::<Vec<i64>>::new());
}
