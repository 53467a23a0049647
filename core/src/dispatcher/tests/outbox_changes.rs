//! What happens to claimed mail while others write to the outbox, and while others could do it.

use super::*;
use crate::dsn::DsnWishes;
use crate::hold::Hold;
use crate::io::Input;
use crate::outbox::{Cursor, Row, Scanned};

/// What was changed while it was tried is not tried again before.
const REST: Duration = Duration::from_secs(12);

/// Runs until the server has taken this many messages.
fn run_until_accepted(world: &mut World, address: &str, count: usize) {
    for _ in 0..10_000 {
        if world.server(address).accepted.len() >= count {
            return;
        }
        world.run_for(Duration::from_millis(1));
    }
    panic!("the server did not take {count} messages");
}

#[test]
fn claimed_mail_that_somebody_deletes_is_not_sent() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    for number in 100..130 {
        world.mail(&format!("s{number}@origin.example"), "a@example.org", "x");
    }
    run_until_accepted(&mut world, "192.0.2.1", 1);
    world.outbox.mails.clear();
    world.outbox.data_version += 1;
    world.input(Input::OutboxChanged);
    world.run();
    let server = world.server("192.0.2.1");
    // One is taken, and each connection may have begun another.
    assert!(server.accepted.len() <= 1 + server.most_open, "{}", server.accepted.len());
}

#[test]
fn claimed_mail_that_somebody_redirects_goes_to_the_new_recipient() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    world.domain("example.net", "192.0.2.2");
    for number in 100..130 {
        world.mail(&format!("s{number}@origin.example"), "a@example.org", "x");
    }
    run_until_accepted(&mut world, "192.0.2.1", 1);
    let ids: Vec<i64> = world.outbox.mails.keys().collect();
    for id in ids {
        world.outbox.mails.get_mut(&id).unwrap().recipient = "b@example.net".into();
    }
    world.outbox.data_version += 1;
    world.input(Input::OutboxChanged);
    world.run_for(REST);
    world.run();
    let kept = world.server("192.0.2.1").accepted.len();
    let begun = 1 + world.server("192.0.2.1").most_open;
    assert!(kept <= begun, "{kept}");
    // What was being sent at that moment is another mail now.
    let sent = world.server("192.0.2.2").accepted.len();
    assert!((30 - kept..=30).contains(&sent), "{sent} {kept}");
    assert!(world.outbox.mails.is_empty());
}

/// A world in which a mail is changed while a server takes it.
fn change_in_flight(reply: &'static str, change: impl FnOnce(&mut outbox::Mail)) -> (World, i64) {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1").next.push_back(Behaviour::on(".", reply));
    world.exchange("example.net", 10, "mx.example.net", "192.0.2.2");
    let id = world.mail(SENDER, "a@example.org", "first");
    world.slow.insert("commit", Duration::from_millis(500));
    for _ in 0..10_000 {
        if world.server("192.0.2.1").count("DATA") > 0 {
            break;
        }
        world.run_for(Duration::from_millis(1));
    }
    assert_eq!(world.server("192.0.2.1").count("DATA"), 1);
    change(world.outbox.mails.get_mut(&id).unwrap());
    world.outbox.data_version += 1;
    world.input(Input::OutboxChanged);
    world.run_for(REST);
    world.run();
    (world, id)
}

#[test]
fn other_mail_in_the_place_of_a_delivered_one_is_sent_too() {
    let (mut world, id) = change_in_flight("250 taken", |mail| {
        mail.recipient = "b@example.net".into();
        mail.data = "second message\r\n"[..].into();
    });
    assert_eq!(world.server("192.0.2.1").accepted.len(), 1);
    assert_eq!(world.server("192.0.2.2").recipients(), ["b@example.net"]);
    assert_eq!(world.outbox.deleted, [id]);
    assert!(
        world.notes().contains("mail 1 to <b@example.net> was changed by another program"),
        "{}",
        world.notes()
    );
}

#[test]
fn mail_that_is_redirected_while_a_server_takes_it_is_not_sent_twice() {
    let (mut world, id) = change_in_flight("250 taken", |mail| mail.remote = Some("192.0.2.2".into()));
    assert_eq!(world.outbox.deleted, [id]);
    assert_eq!(world.server("192.0.2.2").accepted.len(), 0);
}

#[test]
fn mail_that_is_redirected_while_a_server_refuses_it_has_not_failed() {
    let (mut world, id) = change_in_flight("550 never", |mail| mail.remote = Some("192.0.2.2".into()));
    assert_eq!(world.server("192.0.2.2").recipients(), ["a@example.org"]);
    assert_eq!(world.outbox.deleted, [id], "it was delivered, not bounced");
}

/// What another program may do to a mail whose next hop is about to fail as a whole.
const REDIRECTIONS: [fn(&mut outbox::Mail); 2] =
    [|mail| mail.recipient = "b@example.net".into(), |mail| mail.remote = Some("192.0.2.2".into())];

#[test]
fn mail_that_is_redirected_while_its_next_hop_fails_as_a_whole_has_not_failed() {
    for redirect in REDIRECTIONS {
        for is_read_before in [false, true] {
            let mut world = World::with(
                Settings { schedule: Schedule { retries: 1, ..Schedule::default() }, ..settings() },
                Mode::Daemon,
            );
            world.exchange("example.net", 10, "mx.example.net", "192.0.2.2");
            let connect = if is_read_before { Connect::Refused } else { Connect::Silent };
            world.domain("example.org", "192.0.2.1").usual = Behaviour::connect(connect);
            let [changed, kept] = ["a", "c"].map(|name| world.mail("", &format!("{name}@example.org"), "x"));
            world.slow.insert("recall", Duration::from_secs(1));
            world.input(Input::OutboxChanged);
            world.run_for(Duration::from_millis(500));
            assert_eq!(world.outbox.asked.contains_key("recall"), is_read_before);
            redirect(world.outbox.mails.get_mut(&changed).unwrap());
            world.run_for(Duration::from_secs(100));
            assert_eq!(world.server("192.0.2.2").accepted.len(), 1, "{is_read_before}");
            assert_eq!(world.outbox.deleted, [changed], "{is_read_before}: it was delivered, not dropped");
            let failed = |event: &&Event| matches!(event, Event::Failed { id, .. } if id.0 == kept);
            assert_eq!(world.events.iter().filter(failed).count(), 1, "{is_read_before}");
        }
    }
}

#[test]
fn other_mail_of_the_same_domain_in_the_place_of_one_that_fails_has_a_pass_of_its_own() {
    let mut world = World::new();
    let id = world.mail(SENDER, "a@example.org", "first");
    world.dns_is_dead = true;
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(1));
    let mail = world.outbox.mails.get_mut(&id).unwrap();
    (mail.recipient, mail.data) = ("b@example.org".into(), "second message"[..].into());
    world.run_for(Duration::from_secs(100));
    assert_eq!(world.outbox.asked["recall"], 2, "the first finds that it is not what was tried");
    assert_eq!(world.failures(id).len(), 1);
}

#[test]
fn mail_that_was_told_apart_is_not_taken_for_other_mail_when_its_next_hop_fails() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1").usual = Behaviour::on("RCPT", "450 later");
    let ids = ["one", "two", "six"].map(|data| world.mail(SENDER, "a@example.org", data));
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(60));
    assert_eq!(ids.map(|id| world.failures(id).len()), [1, 1, 1]);
    world.dns_is_dead = true;
    world.run_for(Duration::from_secs(4000));
    assert_eq!(ids.map(|id| world.failures(id).len()), [2, 2, 2]);
    assert_eq!(world.outbox.asked["recall"], 1, "the attempt counts at once");
}

#[test]
fn an_attempt_counts_also_if_the_clock_is_set_back_while_the_next_hop_fails() {
    let mut world = World::new();
    let id = world.mail(SENDER, "a@example.org", "x");
    world.failed_before(id, 1, 100_000, false);
    world.dns_is_dead = true;
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.failures(id).len(), 1, "it is being tried");
    world.now.wall.0 -= 200_000;
    world.run_for(Duration::from_secs(100));
    assert_eq!(world.failures(id).len(), 2);
}

#[test]
fn of_mail_that_is_deleted_while_its_next_hop_fails_nothing_is_told() {
    let mut world = World::new();
    world.mail(SENDER, "a@example.org", "x");
    world.dns_is_dead = true;
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(1));
    world.outbox.mails.clear();
    world.run_for(Duration::from_secs(600));
    assert_eq!(world.dispatcher.indexed(), 0);
    assert!(!world.events.iter().any(|event| matches!(event, Event::Failed { .. })));
}

#[test]
fn a_storm_of_changes_keeps_nothing_from_being_sent() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    for number in 100..130 {
        world.mail(&format!("s{number}@origin.example"), "a@example.org", "x");
    }
    for _ in 0..5_000 {
        world.run_for(Duration::from_millis(1));
        world.outbox.data_version += 1;
        world.input(Input::OutboxChanged);
    }
    world.run();
    assert_eq!(world.server("192.0.2.1").accepted.len(), 30);
}

#[test]
fn mail_that_only_looks_alike_does_not_wait_behind_one_stuck_message() {
    let mut world = World::new();
    let server = world.domain("example.org", "192.0.2.1");
    server.next.push_back(Behaviour::on(".", "hang"));
    // One sender and one length: to the index it looks like one message.
    for number in 100..112 {
        world.mail(SENDER, "a@example.org", &format!("{number}"));
    }
    world.run_for(Duration::from_secs(60));
    assert!(world.server("192.0.2.1").accepted.len() >= 10, "{}", world.server("192.0.2.1").accepted.len());
}

#[test]
fn mail_that_only_looks_alike_gets_further_connections_too() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    // While the database is asked for what looks like one message, nothing seems to wait.
    world.slow.insert("claim", Duration::from_millis(50));
    for number in 100..180 {
        world.mail(SENDER, "a@example.org", &format!("{number}"));
    }
    world.run();
    assert_eq!(world.server("192.0.2.1").accepted.len(), 80);
    assert!(world.server("192.0.2.1").most_open > 1, "{}", world.server("192.0.2.1").most_open);
}

#[test]
fn what_the_walk_over_known_mail_finds_beyond_it_fails_with_its_next_hop() {
    // Found by simulation: such mail was tried again and again, all at one instant.
    let mut settings = settings();
    settings.resolver.servers.clear();
    let mut now = Now::new(Instant::from_micros(0), UnixTime(1_000_000));
    let mut dispatcher = Dispatcher::new(now, settings, Hosts::new(), Mode::Daemon, [1; 32]);
    let row = Row {
        id: MailId(5),
        remote: None,
        sender: None,
        recipient: b"r@example.org"[..].into(),
        submission: UnixTime(0),
        data_octets: 1,
        fail_count: 0,
        last_try: UnixTime(0),
        fatal: false,
        last_failure: None,
        hold: Hold::default(),
        wishes: DsnWishes::default(),
    };
    let orders = core::iter::from_fn(|| dispatcher.poll_output()).find_map(|output| {
        let Output::Store(id, StoreRequest::ReadOrders { .. }) = output else { return None };
        Some(id)
    });
    dispatcher.handle_input(now, Input::Store(orders.unwrap(), Ok(StoreReply::Orders(None))));
    // The first scan and the second find nothing, but another program has written in between, so known mail is rescanned.
    for (rows, data_version) in [(vec![], 1), (vec![], 2), (vec![row], 2)] {
        let asked = core::iter::from_fn(|| dispatcher.poll_output()).find_map(|output| {
            let Output::Store(id, StoreRequest::Scan { .. }) = output else { return None };
            Some(id)
        });
        let answer = StoreReply::Scanned(Scanned {
            rows,
            taken: Vec::new(),
            unreadable: Vec::new(),
            next: None,
            data_version,
        });
        dispatcher.handle_input(now, Input::Store(asked.unwrap(), Ok(answer)));
        if data_version == 1 {
            now.monotonic = now.monotonic + Duration::from_secs(3600);
            dispatcher.handle_timeout(now);
        }
    }
    let recalled = core::iter::from_fn(|| dispatcher.poll_output()).find_map(|output| {
        let Output::Store(_, StoreRequest::Recall { ids }) = output else { return None };
        Some(ids)
    });
    assert_eq!(recalled.unwrap(), [MailId(5)]);
}

#[test]
fn the_next_rows_are_asked_for_before_those_that_came_are_taken_in() {
    let now = Now::new(Instant::from_micros(0), UnixTime(1_000_000));
    let mut dispatcher = Dispatcher::new(now, settings(), Hosts::new(), Mode::Daemon, [1; 32]);
    let rows_after = |after: Cursor, count: u32, more: bool| {
        let rows = (1..=i64::from(count)).map(|number| Row {
            id: MailId(after.next_id().unwrap().0.max(1) + number - 1),
            remote: None,
            sender: None,
            recipient: b"r@example.org"[..].into(),
            submission: UnixTime(0),
            data_octets: 1,
            fail_count: 1,
            last_try: now.wall,
            fatal: false,
            last_failure: None,
            hold: Hold::default(),
            wishes: DsnWishes::default(),
        });
        let rows: Vec<Row> = rows.collect();
        let next = rows.last().filter(|_| more).map(|row| Cursor::After(row.id));
        Ok(StoreReply::Scanned(Scanned {
            rows,
            taken: Vec::new(),
            unreadable: Vec::new(),
            next,
            data_version: 1,
        }))
    };
    let next_scan = |dispatcher: &mut Dispatcher| {
        core::iter::from_fn(|| dispatcher.poll_output()).find_map(|output| {
            let Output::Store(id, StoreRequest::Scan { after, limit }) = output else { return None };
            Some((id, after, limit))
        })
    };
    let (id, after, limit) = next_scan(&mut dispatcher).unwrap();
    dispatcher.handle_input(now, Input::Store(id, rows_after(after, limit, true)));
    assert_eq!(dispatcher.indexed(), 0);
    let (id, after, _) = next_scan(&mut dispatcher).unwrap();
    assert_eq!(after, Cursor::After(MailId(i64::from(limit))), "it goes on behind what is not taken in yet");
    assert_eq!(dispatcher.poll_timeout(), Some((now.monotonic, TimeoutReason::Scan)));
    dispatcher.handle_timeout(now);
    assert_eq!(dispatcher.indexed(), limit as usize);
    // An answer that comes sooner than that, and an order, find nothing left to be taken in.
    dispatcher.handle_input(now, Input::Store(id, rows_after(after, limit, true)));
    dispatcher.handle_input(now, Input::TryNow);
    assert_eq!(dispatcher.indexed(), 2 * limit as usize);
    let (id, after, _) = next_scan(&mut dispatcher).unwrap();
    dispatcher.handle_input(now, Input::Store(id, rows_after(after, limit, true)));
    let (id, after, _) = next_scan(&mut dispatcher).unwrap();
    dispatcher.handle_input(now, Input::Store(id, rows_after(after, 1, false)));
    assert_eq!(dispatcher.indexed(), 3 * limit as usize + 1);
}

#[test]
fn mail_with_ids_at_both_ends_is_delivered_and_missed_when_it_is_gone() {
    for id in [i64::MIN, i64::MAX] {
        let mut world = World::new();
        world.domain("example.org", "192.0.2.1");
        let made = world.mail(SENDER, "a@example.org", "x");
        let mail = world.outbox.mails.remove(&made).unwrap();
        world.outbox.mails.insert(id, mail.clone());
        world.run();
        assert_eq!(world.outbox.deleted, [id]);
        // One that waits is forgotten when another program deletes it.
        world.outbox.mails.insert(id, mail);
        world.failed_before(id, 1, 10, false);
        world.outbox.data_version += 1;
        world.run_for(Duration::from_secs(60));
        assert_eq!(world.dispatcher.indexed(), 1);
        world.outbox.mails.clear();
        world.outbox.data_version += 1;
        world.run_for(Duration::from_secs(60));
        assert_eq!(world.dispatcher.indexed(), 0, "{id}");
    }
}
