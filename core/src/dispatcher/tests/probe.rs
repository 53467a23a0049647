//! A probe is a conversation as mail has it, and changes nothing.

use super::*;
use crate::address::Mailbox;
use crate::destination_pattern::DestinationPattern;
use crate::explanation::{Activity, Answer, HostReason, Inquiry, Subject};
use crate::next_hop::{NextHop, Relay};
use crate::policy::{Choice, PolicyLine};
use crate::probe::{Probe, ProbeEnvelope, ProbeEvent, ProbeVerdict};

fn mailbox(text: &str) -> Mailbox {
    Mailbox::parse(text.as_bytes()).unwrap()
}

fn to(recipient: &str) -> Probe {
    let recipient = mailbox(recipient);
    let next_hop = recipient.domain().unwrap().into();
    let envelope = ProbeEnvelope { sender: Some(mailbox(SENDER)), recipient };
    Probe { next_hop, port: None, envelope: Some(envelope) }
}

fn begin(world: &mut World, probe: Probe) {
    world.input(Input::Inquiry(InquiryId(7), Inquiry::Probe(Box::new(probe))));
}

/// What was found out, if the probe has ended.
fn verdict(world: &World) -> Option<ProbeVerdict> {
    world.answers.iter().find_map(|(id, answer)| match answer {
        Answer::Probed(verdict) if *id == InquiryId(7) => Some((**verdict).clone()),
        Answer::Probed(_) | Answer::Probing(_) | Answer::Explanation(_) => None,
    })
}

fn probe(world: &mut World, probe: Probe) -> String {
    world.answers.clear();
    begin(world, probe);
    // Longer than all timeouts of a conversation at each port.
    world.run_for(Duration::from_secs(3000));
    let (_, last) = world.answers.last().unwrap();
    assert!(last.is_last(), "{last:?}");
    verdict(world).unwrap().to_string()
}

fn said(world: &World) -> Vec<String> {
    let text = |octets: &Bytes| String::from_utf8_lossy(octets).trim_end().to_owned();
    let steps = world.answers.iter().filter_map(|(_, answer)| match answer {
        Answer::Probing(step) => Some(&step.what),
        Answer::Probed(_) | Answer::Explanation(_) => None,
    });
    let lines = steps.map(|what| match what {
        ProbeEvent::Sent(octets) => format!("> {}", text(octets)),
        ProbeEvent::Received(octets) => format!("< {}", text(octets)),
        ProbeEvent::Remark(remark) => remark.to_string(),
    });
    lines.collect()
}

#[test]
fn a_server_that_would_take_the_mail_is_asked_no_more() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    let told = probe(&mut world, to("a@example.org"));
    assert_eq!(told, "mx.example.org [192.0.2.1]:25 would take the mail: 250 ok");
    let commands = &world.server("192.0.2.1").commands;
    let expected =
        ["EHLO me.example", "MAIL FROM:<sender@origin.example>", "RCPT TO:<a@example.org>", "RSET", "QUIT"];
    assert_eq!(*commands, expected);
    let said = said(&world);
    for line in [
        "looking for the MX of example.org",
        "looking for the addresses of mx.example.org",
        "connecting to mx.example.org [192.0.2.1]:25",
        "< 220 mx ESMTP",
        "> RCPT TO:<a@example.org>",
        "< 221 bye",
    ] {
        assert!(said.iter().any(|told| told == line), "{line}: {said:?}");
    }
    assert!(!world.outbox.asked.contains_key("claim") && !world.outbox.asked.contains_key("commit"));
    world.assert_clean();
}

#[test]
fn a_probe_asks_once_where_commands_go_in_batches() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1").usual = Behaviour::on("EHLO", "250-mx\r\n250 PIPELINING");
    let told = probe(&mut world, to("a@example.org"));
    assert_eq!(told, "mx.example.org [192.0.2.1]:25 would take the mail: 250 ok");
    let server = world.server("192.0.2.1");
    assert_eq!(["MAIL", "RCPT", "RSET", "QUIT", "DATA"].map(|verb| server.count(verb)), [1, 1, 1, 1, 0]);
}

#[test]
fn a_probe_that_is_dropped_for_what_it_offers_tries_once_more_and_teaches_nothing() {
    let batches =
        Behaviour::on("EHLO", "250-mx\r\n250 PIPELINING").and("RCPT", "500 what?").and("RSET", "drop");
    let mut large_hello = Behaviour::on("EHLO", "250-mx\r\n250 STARTTLS");
    large_hello.large_hello = LargeHello::Dropped;
    for (usual, connections) in [(batches, 3), (large_hello, 2)] {
        let mut world = World::new();
        world.domain("example.org", "192.0.2.1").usual = usual;
        let told = [0, 1].map(|_| probe(&mut world, to("a@example.org")));
        assert_eq!(told[0], told[1]);
        assert_eq!(world.server("192.0.2.1").connections, 2 * connections, "{told:?}");
    }
}

#[test]
fn a_probe_without_an_address_only_finds_out_whether_a_conversation_comes_about() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    let next_hop = NextHop::Domain(Domain::parse("example.org").unwrap());
    let told = probe(&mut world, Probe { next_hop, port: None, envelope: None });
    assert_eq!(told, "mail can be sent to mx.example.org [192.0.2.1]:25");
    assert_eq!(world.server("192.0.2.1").commands, ["EHLO me.example", "QUIT"]);
}

#[test]
fn a_probe_fails_as_mail_does() {
    for (command, answer, expected) in [
        ("RCPT", "550 5.1.1 who?", "mail would fail for good: 550 5.1.1 who?"),
        ("RCPT", "450 4.2.0 later", "mail would fail for now: 450 4.2.0 later"),
        ("MAIL", "550 no", "mail would fail for good: 550 no"),
        ("MAIL", "421 busy", "mail would fail for now: 421 busy"),
        ("greeting", "554 go away", "mail would fail for good: 554 go away"),
        ("greeting", "hang", "mail would fail for now: Failed to reach any MX"),
        ("MAIL", "drop", "mail would fail for now: Failed to reach any MX"),
    ] {
        let mut world = World::new();
        world.domain("example.org", "192.0.2.1").usual = Behaviour::on(command, answer);
        let told = probe(&mut world, to("a@example.org"));
        assert!(told.starts_with(expected), "{command} {answer}: {told}");
        assert_eq!(world.server("192.0.2.1").count("DATA"), 0);
        // The same mail.
        let id = world.mail(SENDER, "a@example.org", "x");
        world.input(Input::OutboxChanged);
        world.run_for(Duration::from_secs(3000));
        let failed = world.events.iter().find_map(|event| {
            let Event::Failed { attempt, .. } = event else { return None };
            Some(attempt.to_string())
        });
        let of_mail = failed.unwrap_or_else(|| panic!("mail {id} has not failed"));
        let (_, of_probe) = told.split_once(": ").unwrap();
        assert_eq!(of_probe.split(" (").next(), of_mail.split(" (").next());
    }
    let mut world = World::new();
    let told = probe(&mut world, to("a@gone.example"));
    assert!(told.starts_with("mail would fail for good: Failed to resolve"), "{told}");
    world.domain("example.org", "192.0.2.1").next.push_back(Behaviour::connect(Connect::Local));
    let told = probe(&mut world, to("a@example.org"));
    assert_eq!(told, "mail would wait: too many open files");
}

#[test]
fn a_probe_goes_by_what_is_said_of_the_host_that_it_asks() {
    for (most, verdicts) in [(1, 0), (2, 1)] {
        let line = PolicyLine {
            destination: DestinationPattern::parse("mx:a.example").unwrap(),
            choices: vec![Choice::Concurrency(most)],
            line: 1,
        };
        let settings = Settings { destinations: [line].into(), ..settings() };
        let mut world = World::with(settings, Mode::Daemon);
        world.exchange("example.org", 20, "b.example", "192.0.2.2").usual = Behaviour::on(".", "hang");
        world.mail(SENDER, "a@example.org", "x");
        world.input(Input::OutboxChanged);
        // Longer than the answers of DNS are valid, and shorter than the reply to a message may take.
        world.run_for(Duration::from_secs(400));
        assert_eq!(world.server("192.0.2.2").count("EHLO"), 1);
        // By now another server is preferred, of which the mail that is under way knows nothing.
        world.exchange("example.org", 10, "a.example", "192.0.2.1");
        begin(&mut world, to("a@example.org"));
        world.run_for(Duration::from_secs(50));
        assert_eq!(world.server("192.0.2.1").count("RCPT"), verdicts, "{:?}", said(&world));
    }
}

#[test]
fn mail_for_a_host_that_may_have_one_connection_waits_for_a_probe_at_another_host() {
    let line = PolicyLine {
        destination: DestinationPattern::parse("mx:a.example").unwrap(),
        choices: vec![Choice::Concurrency(1)],
        line: 1,
    };
    let mut world = World::with(Settings { destinations: [line].into(), ..settings() }, Mode::Daemon);
    let preferred = world.exchange("example.org", 10, "a.example", "192.0.2.1");
    preferred.usual = Behaviour::connect(Connect::Refused);
    world.exchange("example.org", 20, "b.example", "192.0.2.2").usual = Behaviour::on("RCPT", "hang");
    begin(&mut world, to("a@example.org"));
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.server("192.0.2.2").connections, 1);
    world.server("192.0.2.1").usual = Behaviour::default();
    world.mail(SENDER, "a@example.org", "x");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.server("192.0.2.1").count("MAIL"), 0);
    world.run_for(Duration::from_secs(600));
    assert!(verdict(&world).is_some());
    assert_eq!(world.server("192.0.2.1").accepted.len(), 1);
}

#[test]
fn a_probe_goes_on_to_the_next_server_and_teaches_nothing() {
    let mut world = World::new();
    world.exchange("example.org", 10, "a.example", "192.0.2.1").usual = Behaviour::connect(Connect::Refused);
    world.exchange("example.org", 20, "b.example", "192.0.2.2");
    let told = probe(&mut world, to("a@example.org"));
    assert_eq!(told, "b.example [192.0.2.2]:25 would take the mail: 250 ok");
    assert_eq!(world.dispatcher.hosts_in_trouble(), []);
    let counted = world.dispatcher.tally();
    assert_eq!((counted.attempts.total(), counted.transactions), (0, 0));
}

#[test]
fn a_probe_may_ask_one_server_at_one_port() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    world.server("192.0.2.9:2525");
    let relay = Relay::parse(b"192.0.2.9:2525").unwrap();
    let asked = Probe { next_hop: NextHop::Relay(relay), ..to("a@example.org") };
    assert_eq!(probe(&mut world, asked), "192.0.2.9 [192.0.2.9]:2525 would take the mail: 250 ok");
    world.server("192.0.2.1:587");
    let port = Some(Port { number: 587, tls: TlsMode::Plain });
    let told = probe(&mut world, Probe { port, ..to("a@example.org") });
    assert_eq!(told, "mx.example.org [192.0.2.1]:587 would take the mail: 250 ok");
}

#[test]
fn a_probe_waits_for_a_place_and_mail_waits_for_that_of_a_probe() {
    let mut world = World::with(with_policy(|policy| policy.concurrency = 1), Mode::Daemon);
    world.domain("example.org", "192.0.2.1").usual = Behaviour::on("MAIL", "hang");
    begin(&mut world, to("a@example.org"));
    world.run_for(Duration::from_secs(5));
    world.mail(SENDER, "a@example.org", "x");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.server("192.0.2.1").most_open, 1);
    let subject = Subject::NextHop(NextHop::Domain(Domain::parse("example.org").unwrap()));
    let told = world.dispatcher.explain(&subject).destination.unwrap();
    assert!(
        matches!(told.activity, Activity::ForHost { why: Some(HostReason::Probe), .. }),
        "{:?}",
        told.activity
    );
    assert_eq!((told.limits.destination.used, told.limits.destination.limit), (1, 1));
    // The server has 5 minutes to answer MAIL.
    world.server("192.0.2.1").usual = Behaviour::default();
    world.run_for(Duration::from_secs(400));
    assert_eq!(world.server("192.0.2.1").accepted.len(), 1);
    assert_eq!(world.server("192.0.2.1").most_open, 1);
    assert!(verdict(&world).is_some());
}

#[test]
fn a_probe_waits_where_all_connections_are_open() {
    let mut world = World::with(Settings { concurrency: 1, ..settings() }, Mode::Daemon);
    world.domain("example.net", "192.0.2.2").usual = Behaviour::on("MAIL", "hang");
    world.domain("example.org", "192.0.2.1");
    world.mail(SENDER, "a@example.net", "x");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(5));
    begin(&mut world, to("a@example.org"));
    world.run_for(Duration::from_secs(5));
    assert!(said(&world).contains(&"waits for a connection: 1 of 1 are open".to_owned()));
    assert_eq!((world.most_open, verdict(&world)), (1, None));
    world.run_for(Duration::from_secs(400));
    assert!(matches!(verdict(&world), Some(ProbeVerdict::Accepted(_))), "{:?}", verdict(&world));
    assert_eq!(world.most_open, 1);
}

#[test]
fn a_probe_of_a_silent_server_gives_way_to_mail() {
    let mut world = World::with(Settings { concurrency: 1, ..settings() }, Mode::Daemon);
    world.domain("example.net", "192.0.2.2").usual = Behaviour::on("greeting", "hang");
    world.domain("example.org", "192.0.2.1");
    begin(&mut world, to("a@example.net"));
    world.run_for(Duration::from_secs(5));
    world.mail(SENDER, "a@example.org", "x");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(20));
    assert_eq!((world.server("192.0.2.1").accepted.len(), verdict(&world)), (0, None));
    world.run_for(Duration::from_secs(20));
    assert_eq!(world.server("192.0.2.1").accepted.len(), 1);
    assert!(matches!(verdict(&world), Some(ProbeVerdict::Waits(_))), "{:?}", verdict(&world));
}

#[test]
fn a_probe_takes_its_share_of_the_rate() {
    let limit = RateLimit { transactions: 1, per: Duration::from_secs(60) };
    let mut world = World::with(with_policy(|policy| policy.rate_limit = Some(limit)), Mode::Daemon);
    world.domain("example.org", "192.0.2.1");
    begin(&mut world, to("a@example.org"));
    world.run_for(Duration::from_secs(1));
    assert!(verdict(&world).is_some());
    world.mail(SENDER, "a@example.org", "x");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(50));
    assert_eq!(world.server("192.0.2.1").accepted.len(), 0);
    world.run_for(Duration::from_secs(15));
    assert_eq!(world.server("192.0.2.1").accepted.len(), 1);
}

#[test]
fn a_probe_that_nobody_waits_for_any_more_ends_and_so_do_all_at_a_drain() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1").usual = Behaviour::on("MAIL", "hang");
    begin(&mut world, to("a@example.org"));
    world.run_for(Duration::from_secs(1));
    world.input(Input::EndInquiry(InquiryId(7)));
    world.run_for(Duration::from_secs(400));
    assert_eq!(verdict(&world), None);
    world.assert_clean();
    begin(&mut world, to("a@example.org"));
    world.run_for(Duration::from_secs(1));
    world.input(Input::Drain);
    assert_eq!(verdict(&world).unwrap().to_string(), "mail would wait: the daemon ends");
    assert!(world.drained_at.is_some());
}

#[test]
fn a_probe_that_was_begun_with_other_settings_ends() {
    for silent in [true, false] {
        let mut world = World::new();
        world.domain("example.org", "192.0.2.1").usual = Behaviour::on("greeting", "hang");
        if !silent {
            world.dns_is_dead = true;
        }
        begin(&mut world, to("a@example.org"));
        world.run_for(Duration::from_secs(1));
        let known = world.attempts.len();
        assert_eq!(known, usize::from(silent));
        let mut changed = settings();
        changed.policy.ports = [Port { number: 2525, tls: TlsMode::StartTls }].into();
        world.input(Input::Settings(Box::new(changed)));
        world.dns_is_dead = false;
        world.run_for(Duration::from_secs(60));
        let told = verdict(&world).unwrap().to_string();
        assert_eq!(told, "mail would wait: the configuration has changed meanwhile; probe again");
        assert_eq!(world.attempts.len(), known, "nothing is begun with the old ports");
    }
}
