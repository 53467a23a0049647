//! Servers that take a connection and then say nothing, name servers that say nothing, and who has to wait for them.

use super::*;

/// Mute domains, so many at each address.
fn mute(world: &mut World, addresses: u32, domains_at_each: u32, hangs_at: &'static str) -> Vec<i64> {
    let mut ids = Vec::new();
    for number in 0..addresses {
        let at = IpAddr::from(u32::to_be_bytes(0x0a00_0000 + number)).to_string();
        for domain in 0..domains_at_each {
            let domain = format!("mute{number}-{domain}.example");
            world.domain(&domain, &at).usual = Behaviour::on(hangs_at, "hang");
            ids.push(world.mail(SENDER, &format!("a@{domain}"), "x"));
        }
    }
    ids
}

/// Submits a mail to a server that works, and lets so much time pass that it has to be taken.
fn assert_served_within(world: &mut World, seconds: u64) {
    let before = world.server("192.0.2.1").accepted.len();
    world.mail(SENDER, "a@live.example", &format!("{before}"));
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(seconds));
    assert_eq!(world.server("192.0.2.1").accepted.len(), before + 1);
}

fn crowded_world(concurrency: u32) -> World {
    let settings =
        Settings { concurrency, policy: Policy { idle: Duration::ZERO, ..settings().policy }, ..settings() };
    let mut world = World::with(settings, Mode::Daemon);
    world.domain("live.example", "192.0.2.1");
    world
}

#[test]
fn servers_that_greet_and_say_nothing_more_hold_up_others_for_half_a_minute() {
    for hangs_at in ["greeting", "EHLO", "MAIL", "RCPT", "DATA"] {
        let mut world = crowded_world(100);
        let ids = mute(&mut world, 6, 20, hangs_at);
        world.input(Input::OutboxChanged);
        world.run_for(Duration::from_secs(2));
        assert_eq!(world.most_open, 100, "all places are taken");
        assert_served_within(&mut world, 32);
        assert!(ids.iter().all(|&id| world.failures(id).is_empty()), "nothing has failed by that");
        assert_served_within(&mut world, 1);
    }
}

#[test]
fn what_yields_comes_back_last_one_at_a_time_and_with_all_its_time() {
    let mut world = crowded_world(20);
    let ids = mute(&mut world, 1, 20, "EHLO");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(2));
    let mute = |world: &World| world.servers[&world::address("10.0.0.0")].open.len();
    assert_eq!(mute(&world), 20);
    assert_served_within(&mut world, 32);
    for _ in 0..9 {
        assert_eq!(mute(&world), 1, "one at a time");
        assert_served_within(&mut world, 31);
    }
    assert!(ids.iter().all(|&id| world.failures(id).is_empty()), "the last resort has its 5 minutes");
    world.run_for(Duration::from_secs(60));
    assert!(ids.iter().all(|&id| world.failures(id).len() == 1), "what one met with counts for all");
    assert!(world.failures(ids[0])[0].contains("EHLO"), "{:?}", world.failures(ids[0]));
}

#[test]
fn a_server_that_is_only_slow_gets_its_mail_after_all_others() {
    let mut world = crowded_world(1);
    let slow = world.domain("slow.example", "192.0.2.7");
    slow.next.push_back(Behaviour::on("EHLO", "hang"));
    let id = world.mail(SENDER, "a@slow.example", "x");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(1));
    assert_served_within(&mut world, 31);
    world.run();
    assert_eq!((world.server("192.0.2.7").accepted.len(), world.server("192.0.2.7").connections), (1, 2));
    assert!(!world.events.iter().any(|event| matches!(event, Event::Failed { .. })), "{id}");
}

#[test]
fn a_silent_server_keeps_its_place_while_nobody_needs_it() {
    let mut world = crowded_world(2);
    world.domain("slow.example", "192.0.2.7").usual = Behaviour::on("EHLO", "hang");
    world.mail(SENDER, "a@slow.example", "x");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(1));
    for _ in 0..4 {
        assert_served_within(&mut world, 32);
    }
    assert_eq!((world.server("192.0.2.7").connections, world.server("192.0.2.7").open.len()), (1, 1));
}

#[test]
fn a_server_that_has_the_whole_message_is_never_given_up() {
    let mut world = crowded_world(1);
    world.domain("slow.example", "192.0.2.7").usual = Behaviour::on(".", "hang");
    let id = world.mail(SENDER, "a@slow.example", "x");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(1));
    world.mail(SENDER, "a@live.example", "x");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(590));
    assert_eq!(world.server("192.0.2.7").open.len(), 1);
    world.run_for(Duration::from_secs(20));
    assert!(world.failures(id)[0].contains("uncertain"));
    assert_eq!(world.server("192.0.2.1").accepted.len(), 1);
}

#[test]
fn last_resorts_leave_places_to_others() {
    let mut world = crowded_world(10);
    mute(&mut world, 60, 1, "EHLO");
    world.input(Input::OutboxChanged);
    // Each of them is tried once, and half of all places are then for those that are tried again.
    world.run_for(Duration::from_secs(400));
    for _ in 0..5 {
        assert_served_within(&mut world, 32);
    }
}

#[test]
fn last_resorts_leave_places_to_others_also_when_the_limit_is_lowered() {
    let mut world = crowded_world(10);
    mute(&mut world, 60, 1, "EHLO");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(400));
    let settings = Settings { concurrency: 2, ..world.dispatcher.books.config.settings.clone() };
    world.input(Input::Settings(Box::new(settings)));
    for _ in 0..5 {
        assert_served_within(&mut world, 32);
    }
}

#[test]
fn next_hops_that_are_worked_on_make_room_too() {
    let mut world = crowded_world(5000);
    mute(&mut world, 1100, 1, "EHLO");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(2));
    assert_served_within(&mut world, 32);
}

#[test]
fn who_waits_for_a_silent_host_goes_on_to_the_next() {
    let mut settings = settings();
    settings.policy.host_concurrency = 2;
    let mut world = World::with(settings, Mode::Daemon);
    for number in 0..3 {
        let domain = format!("d{number}.example");
        world.exchange(&domain, 10, "mute.example", "192.0.2.7").usual = Behaviour::on("EHLO", "hang");
        world.exchange(&domain, 20, "backup.example", "192.0.2.8");
        world.mail(SENDER, &format!("a@{domain}"), "x");
    }
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(29));
    assert_eq!(world.server("192.0.2.8").accepted.len(), 0);
    world.run_for(Duration::from_secs(3));
    assert_eq!(world.server("192.0.2.8").accepted.len(), 3);
}

#[test]
fn mail_that_needs_no_answer_of_dns_waits_for_none() {
    for domains in [6000, 12_000] {
        let mut world = World::new();
        world.dns_is_dead = true;
        for number in 0..domains {
            world.mail(SENDER, &format!("a@d{number}.example"), "x");
        }
        world.server("192.0.2.1");
        world.server("192.0.2.2");
        world.input(Input::OutboxChanged);
        world.run_for(Duration::from_secs(1));
        world.mail(SENDER, "a@[192.0.2.1]", "x");
        world.mail_by(Some("192.0.2.2:25"), SENDER, "a@d0.example", "x");
        world.input(Input::OutboxChanged);
        world.run_for(Duration::from_secs(1));
        let taken = ["192.0.2.1", "192.0.2.2"].map(|at| world.server(at).accepted.len());
        assert_eq!(taken, [1, 1]);
    }
}

#[test]
fn mail_waits_in_peace_while_no_name_server_answers() {
    let mut world = World::new();
    world.dns_is_dead = true;
    for number in 0..3000 {
        world.domain(&format!("d{number}.example"), "192.0.2.1");
        world.mail(SENDER, &format!("a@d{number}.example"), "x");
    }
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(600));
    let failed = world.outbox.mails.values().filter(|mail| !mail.faillog.is_empty()).count();
    assert!(
        (50..=400).contains(&failed),
        "those that were asked about, and one after the other then: {failed}"
    );
    assert!(world.notes().contains("no name server (192.0.2.53:53) has answered any of the last 50"));
    world.dns_is_dead = false;
    world.run_for(Duration::from_secs(30));
    // One question was just being asked.
    assert!(world.outbox.mails.len() <= failed + 1, "all go on when one answers");
    assert!(world.notes().contains("a name server answers again"));
}

#[test]
fn next_hops_without_a_failed_attempt_come_before_those_with_one() {
    let mut world = crowded_world(1);
    for number in 0..40 {
        let domain = format!("late{number}.example");
        world.domain(&domain, &format!("192.0.3.{number}")).usual = Behaviour::connect(Connect::Silent);
        let id = world.mail(SENDER, &format!("a@{domain}"), "x");
        world.failed_before(id, 1, 4000, false);
    }
    world.mail(SENDER, "a@live.example", "x");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.attempts[0].1, world::address("192.0.2.1"), "it came last");
    // Later ones, too, pass all that wait.
    assert_served_within(&mut world, 31);
}

#[test]
fn a_server_that_is_left_in_a_hurry_is_not_forgotten() {
    let mut world = crowded_world(1);
    for number in 0..3 {
        let domain = format!("d{number}.example");
        let first =
            world.exchange(&domain, 10, &format!("first{number}.example"), &format!("192.0.3.{number}"));
        first.usual = Behaviour::on("EHLO", "451 4.3.2 not now").and("QUIT", "hang");
        world.exchange(&domain, 20, "backup.example", "192.0.2.8");
        world.mail(SENDER, &format!("a@{domain}"), "x");
    }
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.server("192.0.2.8").accepted.len(), 3);
    assert!((0..3).all(|number| world.server(&format!("192.0.3.{number}")).connections <= 2));
}

#[test]
fn a_conversation_that_is_written_down_comes_to_its_end() {
    let settings = Settings {
        concurrency: 1,
        told: Told { conversations: true, ..Told::default() },
        policy: Policy { idle: Duration::ZERO, ..settings().policy },
        ..settings()
    };
    let mut world = World::with(settings, Mode::Daemon);
    for number in 1..=2 {
        let domain = format!("d{number}.example");
        world.domain(&domain, &format!("192.0.2.{number}")).usual = Behaviour::on("QUIT", "hang");
        world.mail(SENDER, &format!("a@{domain}"), "x");
    }
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_millis(4900));
    assert_eq!(world.outbox.deleted.len(), 1, "the reply to QUIT has 5 s");
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.outbox.deleted.len(), 2);
}

#[test]
fn a_connection_that_has_said_quit_holds_no_place_that_others_wait_for() {
    let mut world = crowded_world(1);
    for number in 0..20 {
        let domain = format!("d{number}.example");
        world.domain(&domain, &format!("192.0.3.{number}")).usual = Behaviour::on("QUIT", "hang");
        world.mail(SENDER, &format!("a@{domain}"), "x");
    }
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.outbox.deleted.len(), 20);
    assert_eq!(world.most_open, 1);
    assert!((0..20).all(|number| world.server(&format!("192.0.3.{number}")).count("QUIT") == 1));
    let open = |world: &World| world.servers.values().map(|server| server.open.len()).sum::<usize>();
    assert_eq!(open(&world), 1, "the last one waits for the reply, since nobody needs its place");
    world.run_for(Duration::from_secs(5));
    assert_eq!(open(&world), 0);
}
