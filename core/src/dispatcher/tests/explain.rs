//! What is said of mail and next hops is what is done.

use super::world::LATENCY;
use super::*;
use crate::explanation::{
    Activity, Answer, DatabaseWork, DeadEndReason, Explanation, HostReason, Inquiry, PauseReason, Places,
    Subject, Waiting,
};
use crate::next_hop::NextHop;

fn next_hop(domain: &str) -> NextHop {
    NextHop::Domain(Domain::parse(domain).unwrap())
}

fn subject(domain: &str) -> Subject {
    Subject::NextHop(next_hop(domain))
}

fn waiting(world: &World, id: i64) -> Waiting {
    world.dispatcher.explain(&Subject::Mail(MailId(id))).mail.unwrap()
}

fn activity(world: &World, domain: &str) -> Activity {
    world.dispatcher.explain(&subject(domain)).destination.unwrap().activity
}

/// Asks for all that is known, also by the name servers.
fn inquire(world: &mut World, subject: Subject) -> Explanation {
    let id = InquiryId(world.answers.len() as u64);
    world.input(Input::Inquiry(id, Inquiry::Explain(subject)));
    world.run_for(Duration::from_secs(1));
    let Some((answered, Answer::Explanation(explanation))) = world.answers.pop() else {
        panic!("there is no answer")
    };
    assert_eq!(answered, id);
    *explanation
}

fn candidates(explanation: &Explanation) -> Vec<String> {
    let route = explanation.destination.as_ref().and_then(|destination| destination.route.as_ref()).unwrap();
    let shown = |known: &explanation::CandidateExplanation| {
        let candidate = &known.candidate;
        format!("{} {} {:?}", candidate.host, candidate.remote, candidate.tls)
    };
    route.candidates.iter().map(shown).collect()
}

#[test]
fn candidates_are_told_in_the_order_in_which_they_are_tried_also_of_a_domain_without_mail() {
    let mut world = World::with_brief_connections();
    world.exchange("example.org", 20, "b.example", "192.0.2.2");
    world.exchange("example.org", 10, "a.example", "192.0.2.1");
    world.server("192.0.2.1").usual = Behaviour::connect(Connect::Refused);
    let told = inquire(&mut world, subject("example.org"));
    let in_order = [
        "a.example 192.0.2.1:25 StartTls",
        "a.example 192.0.2.1:25 Plain",
        "b.example 192.0.2.2:25 StartTls",
        "b.example 192.0.2.2:25 Plain",
    ];
    assert_eq!(candidates(&told), in_order);
    let destination = told.destination.unwrap();
    assert_eq!((destination.activity, destination.mails.ready), (Activity::Nothing, 0));
    assert_eq!(world.attempts, [], "asking tries nothing");
    world.mail(SENDER, "x@example.org", "x");
    world.run();
    let tried: Vec<String> = world.attempts.iter().map(|(_, remote)| remote.to_string()).collect();
    assert_eq!(tried, ["192.0.2.1:25", "192.0.2.2:25"], "another port of the same address is no news");
    // What has not answered is tried last, and why is told.
    let told = inquire(&mut world, subject("example.org"));
    assert_eq!(candidates(&told), [in_order[2], in_order[3], in_order[0], in_order[1]]);
    let route = told.destination.unwrap().route.unwrap();
    let trouble = route.candidates[2].trouble.as_ref().unwrap();
    assert_eq!(trouble.setback.to_string(), "connection refused");
    assert_eq!(trouble.until, world.attempts[0].0 + LATENCY + Duration::from_secs(60));
    assert_eq!(route.mx.iter().map(|(preference, _)| *preference).collect::<Vec<_>>(), [10, 20]);
}

#[test]
fn a_way_that_leads_nowhere_is_told_with_its_reason() {
    let mut world = World::new();
    let told = inquire(&mut world, subject("gone.example"));
    let route = told.destination.unwrap().route.unwrap();
    assert!(matches!(route.dead_end, Some(DeadEndReason::Unresolved(_))), "{route:?}");
    world.exchanges.insert("example.org".into(), vec![(10, "lost.example".into())]);
    let told = inquire(&mut world, subject("example.org"));
    let route = told.destination.unwrap().route.unwrap();
    assert_eq!((route.candidates.len(), route.host_troubles.len(), route.dead_end), (0, 1, None));
}

#[test]
fn mail_says_what_it_waits_for_on_its_way() {
    let mut world = World::new();
    assert_eq!(waiting(&world, 1), Waiting::Unknown);
    world.domain("example.org", "192.0.2.1").usual = Behaviour::on("RCPT", "450 4.2.0 later");
    world.slow.insert("claim", Duration::from_secs(2));
    world.slow.insert("commit", Duration::from_secs(2));
    let id = world.mail(SENDER, "a@example.org", "x");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_millis(1));
    assert_eq!(waiting(&world, id), Waiting::ForDestination(Activity::ForDns));
    world.run_for(Duration::from_secs(1));
    assert_eq!(waiting(&world, id), Waiting::ForDatabase(DatabaseWork::Read));
    world.run_for(Duration::from_millis(2300));
    assert_eq!(waiting(&world, id), Waiting::ForDatabase(DatabaseWork::Record));
    world.run_for(Duration::from_secs(5));
    let Waiting::ForTime(due) = waiting(&world, id) else { panic!("{:?}", waiting(&world, id)) };
    // It is not tried before, and then it is.
    let (tried, now) = (world.attempts.len(), world.now.wall);
    world.run_for(Duration::from_secs(u64::try_from(due.0 - now.0).unwrap() - 1));
    assert_eq!((world.attempts.len(), waiting(&world, id)), (tried, Waiting::ForTime(due)));
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.attempts.len(), tried + 1);
    let nowhere = world.mail(SENDER, "nowhere", "x");
    world.slow.insert("recall", Duration::from_secs(2));
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(1));
    assert_eq!(waiting(&world, nowhere), Waiting::ForDatabase(DatabaseWork::ReadAgain));
    assert_eq!(world.dispatcher.explain(&Subject::Mail(MailId(nowhere))).destination, None);
}

#[test]
fn mail_on_a_connection_names_its_server() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1").usual = Behaviour::on("MAIL", "hang");
    let id = world.mail(SENDER, "a@example.org", "x");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(5));
    let Waiting::ForServer { candidate, is_begun, .. } = waiting(&world, id) else {
        panic!("{:?}", waiting(&world, id))
    };
    assert_eq!((candidate.remote, is_begun), (world::address("192.0.2.1"), true));
    let Activity::UnderWay { busy: 1, connecting: 0, resting: 0, .. } = activity(&world, "example.org")
    else {
        panic!("{:?}", activity(&world, "example.org"))
    };
}

#[test]
fn a_full_house_is_told_with_its_limit() {
    let mut world = World::with(Settings { concurrency: 1, ..settings() }, Mode::Daemon);
    for (domain, at) in [("example.org", "192.0.2.1"), ("example.net", "192.0.2.2")] {
        world.domain(domain, at).usual = Behaviour::on("MAIL", "hang");
        world.mail(SENDER, &format!("a@{domain}"), "x");
    }
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(5));
    let places = Places { used: 1, limit: 1 };
    assert_eq!(activity(&world, "example.net"), Activity::ForConnection(places));
    let limits = world.dispatcher.explain(&subject("example.org")).destination.unwrap().limits;
    assert_eq!((limits.all, limits.destination), (places, Places { used: 1, limit: 10 }));
}

#[test]
fn a_host_that_has_all_its_connections_is_named() {
    let mut world = World::with(with_policy(|policy| policy.host_concurrency = 1), Mode::Daemon);
    for domain in ["example.org", "example.net"] {
        world.domain(domain, "192.0.2.1").usual = Behaviour::on("MAIL", "hang");
        world.mail(SENDER, &format!("a@{domain}"), "x");
    }
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(5));
    let told = ["example.org", "example.net"].map(|domain| activity(&world, domain));
    let is_full = |activity: &&Activity| {
        let why = Some(HostReason::Full(Places { used: 1, limit: 1 }));
        matches!(activity, Activity::ForHost { candidate, why: told }
            if *told == why && candidate.remote == world::address("192.0.2.1"))
    };
    assert_eq!(told.iter().filter(is_full).count(), 1, "{told:?}");
}

#[test]
fn a_pause_tells_how_long_and_why() {
    let mut world = World::new();
    let server = world.domain("example.org", "192.0.2.1");
    server.next.push_back(Behaviour::connect(Connect::Local));
    world.mail(SENDER, "a@example.org", "x");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(1));
    let Activity::ForPause { until, why: PauseReason::Local(text) } = activity(&world, "example.org") else {
        panic!("{:?}", activity(&world, "example.org"))
    };
    assert_eq!(&*text, "too many open files");
    let remaining = until.saturating_duration_since(world.now.monotonic);
    world.run_for(remaining - Duration::from_micros(1));
    assert_eq!(world.attempts.len(), 1);
    world.run_for(Duration::from_millis(1));
    assert_eq!(world.attempts.len(), 2, "then it is tried");
}

#[test]
fn the_rate_limit_is_told_to_the_moment() {
    let limit = RateLimit { transactions: 1, per: Duration::from_secs(60) };
    let mut world = World::with(with_policy(|policy| policy.rate_limit = Some(limit)), Mode::Daemon);
    world.domain("example.org", "192.0.2.1");
    for data in ["x", "y"] {
        world.mail(SENDER, "a@example.org", data);
    }
    let destination = |world: &World| world.dispatcher.explain(&subject("example.org")).destination.unwrap();
    assert_eq!(destination(&world).limits.rate.unwrap().next, None);
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(10));
    let told = destination(&world);
    let Activity::ForPause { until, why: PauseReason::Rate } = told.activity else { panic!("{told:?}") };
    assert_eq!(told.limits.rate.unwrap().next, Some(until));
    let remaining = until.saturating_duration_since(world.now.monotonic);
    let accepted = |world: &mut World| world.server("192.0.2.1").accepted.len();
    world.run_for(remaining - Duration::from_micros(1));
    assert_eq!(accepted(&mut world), 1);
    world.run_for(Duration::from_secs(1));
    assert_eq!(accepted(&mut world), 2);
}

#[test]
fn a_relay_is_known_without_its_credentials() {
    let mut world = World::new();
    world.server("192.0.2.9:25").usual = Behaviour::on("greeting", "hang");
    world.mail_by(Some("user:secret@192.0.2.9:25"), SENDER, "a@example.org", "x");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(5));
    let named = NextHop::Relay(crate::next_hop::Relay::parse(b"192.0.2.9:25").unwrap());
    let told = world.dispatcher.explain(&Subject::NextHop(named)).destination.unwrap();
    assert_eq!((told.mails.ready, told.limits.destination.used), (1, 1));
}

#[test]
fn an_inquiry_that_is_ended_is_not_answered() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    world.input(Input::Inquiry(InquiryId(1), Inquiry::Explain(subject("example.org"))));
    world.input(Input::EndInquiry(InquiryId(1)));
    world.run();
    assert_eq!(world.answers, []);
}
