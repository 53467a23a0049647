//! MTA-STS policies decide how a host is spoken with (RFC 8461), where `tls_policy` says so.

use std::sync::Arc;

use hickory_proto::op::ResponseCode;

use super::*;
use crate::io::{HttpsError, HttpsResponse, HttpsTrouble};
use crate::tls::{CertificateTrouble, Fallback, InsecureMx, Level, TlsPolicy, TlsaRecord};
use crate::wording::faillog_text;

const WEEK: u32 = 7 * 24 * 60 * 60;
const HOST: &str = "mta-sts.example.org";

fn sts() -> Level {
    Level::Sts(Fallback::May)
}

fn auto() -> Level {
    Level::Auto { otherwise: Fallback::May, insecure_mx: InsecureMx::Dane }
}

fn settings_of(level: Level) -> Settings {
    let mut settings = with_policy(|policy| {
        policy.tls = Arc::new(TlsPolicy { level, ..TlsPolicy::default() });
        policy.idle = Duration::ZERO;
    });
    settings.resolver.servers[0].is_believed = true;
    settings
}

/// A domain with one host, whose certificate is one that the authorities vouch for.
fn bare_world(level: Level) -> World {
    let mut world = World::with(settings_of(level), Mode::Daemon);
    world.domain("example.org", "192.0.2.1").usual = trusted();
    world
}

/// The same, with a policy.
fn world(level: Level, mode: &str) -> World {
    let mut world = bare_world(level);
    world.publish("example.org", "1", mode, &["mx.example.org"]);
    world
}

fn trusted() -> Behaviour {
    Behaviour { certificate_is_valid: true, ..untrusted() }
}

fn untrusted() -> Behaviour {
    Behaviour::on("EHLO", "250-mx\r\n250 STARTTLS")
}

fn plain() -> Behaviour {
    Behaviour::on("EHLO", "250 mx")
}

fn text(mode: &str, hosts: &[&str], max_age: u32) -> String {
    let hosts: String = hosts.iter().map(|host| format!("mx: {host}\r\n")).collect();
    format!("version: STSv1\r\nmode: {mode}\r\n{hosts}max_age: {max_age}\r\n")
}

fn response(text: &str) -> HttpsResponse {
    let content_type = Some("text/plain; charset=utf-8".into());
    HttpsResponse { status: 200, content_type, body: Bytes::copy_from_slice(text.as_bytes()) }
}

impl World {
    fn publish(&mut self, domain: &str, id: &str, mode: &str, hosts: &[&str]) {
        self.texts.insert(format!("_mta-sts.{domain}"), vec![format!("v=STSv1; id={id};")]);
        let host = format!("mta-sts.{domain}");
        self.addresses.insert(host.clone(), vec!["192.0.2.80".parse().unwrap()]);
        self.answer_web(&host, Ok(response(&text(mode, hosts, WEEK))));
    }

    fn answer_web(&mut self, host: &str, answer: Result<HttpsResponse, HttpsError>) {
        self.web.insert(host.into(), (Duration::from_millis(5), answer));
    }

    fn withdraw_record(&mut self, domain: &str) {
        self.texts.remove(&format!("_mta-sts.{domain}"));
    }

    fn fetched_hosts(&self) -> Vec<&str> {
        self.fetched.iter().map(|(_, host)| host.as_str()).collect()
    }

    fn run_days(&mut self, days: u32) {
        for _ in 0..days {
            self.run_for(Duration::from_secs(24 * 60 * 60));
        }
    }

    /// Sends a mail, and returns what became of it: the proof, or the failure.
    fn fate(&mut self) -> String {
        let id = self.mail("a@example.net", "b@example.org", "x");
        self.run();
        let fate = self.events.iter().find_map(|event| {
            if let Event::Delivered { id: of, attempt, .. } = event
                && *of == MailId(id)
            {
                let tls = attempt.result.server.tls;
                return Some(tls.map_or("plain text".to_owned(), |tls| tls.proved.name().to_owned()));
            }
            let Event::Failed { id: of, attempt, kind, .. } = event else { return None };
            if *of != MailId(id) {
                return None;
            }
            assert_eq!(*kind, FailureKind::Temporary, "a policy never makes mail fail for good: {event}");
            Some(faillog_text(&attempt.result))
        });
        fate.unwrap_or_else(|| panic!("nothing became of it: {}", self.notes()))
    }

    fn accepted(&mut self) -> usize {
        self.server("192.0.2.1").accepted.len()
    }
}

fn failure(kind: HttpsTrouble) -> HttpsError {
    HttpsError::new(kind, "so it is")
}

#[test]
fn without_the_level_nothing_is_asked() {
    let mut world = world(Level::May, "enforce");
    assert_eq!(world.fate(), "verified");
    assert_eq!(world.asked_for_records, [""; 0]);
    assert_eq!(world.fetched_hosts(), [""; 0]);
    assert_eq!((world.outbox.asked.get("policy"), world.outbox.asked.get("stale")), (None, None));
}

#[test]
fn an_enforced_policy_demands_a_certificate_of_the_host_that_is_trusted() {
    assert_eq!(world(sts(), "enforce").fate(), "MTA-STS");
    let mut world = world(sts(), "enforce");
    world.server("192.0.2.1").usual = untrusted();
    let text = world.fate();
    assert!(text.contains("the certificate of the server is not accepted"), "{text}");
    assert!(text.contains("(MTA-STS)") && text.contains("4.7.5"), "{text}");
    assert_eq!(world.attempts.len(), 1, "there is no way around it in plain text");
    assert_eq!(world.accepted(), 0);
}

#[test]
fn an_enforced_policy_demands_tls() {
    let mut world = world(sts(), "enforce");
    world.server("192.0.2.1").usual = plain();
    let text = world.fate();
    assert!(text.contains("STARTTLS is not offered, but MTA-STS needs it"), "{text}");
    world.server("192.0.2.1").usual = Behaviour { tls_fails: true, ..trusted() };
    let text = world.fate();
    assert!(text.contains("handshake"), "{text}");
    assert_eq!(world.accepted(), 0);
}

#[test]
fn a_host_that_an_enforced_policy_does_not_name_gets_nothing_and_the_next_one_is_tried() {
    let mut world = bare_world(sts());
    world.publish("example.org", "1", "enforce", &["*.example.net"]);
    let text = world.fate();
    assert!(
        text.contains("mx.example.org is not among the hosts of the MTA-STS policy of example.org"),
        "{text}"
    );
    assert_eq!(world.attempts, [], "nothing is even connected to");
    world.exchange("example.org", 20, "second.example.net", "192.0.2.2").usual = trusted();
    world.run_for(Duration::from_secs(4000));
    assert_eq!(world.server("192.0.2.2").accepted.len(), 1, "{}", world.notes());
    assert_eq!(world.accepted(), 0);
}

#[test]
fn a_policy_that_is_to_blame_is_looked_at_again_in_the_next_pass() {
    let mut world = bare_world(sts());
    world.publish("example.org", "1", "enforce", &["other.example.org"]);
    assert!(world.fate().contains("is not among the hosts"));
    world.publish("example.org", "2", "enforce", &["mx.example.org"]);
    // Long before the record would be asked for again for its age.
    assert_eq!(world.fate(), "MTA-STS");
    assert_eq!(world.asked_for_records.len(), 2);
}

#[test]
fn in_testing_mode_mail_goes_as_without_a_policy_and_what_it_lacks_is_told() {
    for (usual, fate, told) in [
        (trusted(), "verified", ""),
        (untrusted(), "unverified", "(MTA-STS); mail goes all the same"),
        (plain(), "plain text", "STARTTLS is not offered, but MTA-STS needs it; mail goes all the same"),
    ] {
        let mut world = world(sts(), "testing");
        world.server("192.0.2.1").usual = usual;
        assert_eq!(world.fate(), fate);
        assert!(world.notes().contains(told), "{}", world.notes());
        assert_eq!(world.notes().contains("all the same"), !told.is_empty(), "{}", world.notes());
    }
    let mut world = bare_world(sts());
    world.publish("example.org", "1", "testing", &["other.example.org"]);
    assert_eq!(world.fate(), "verified");
    assert!(world.notes().contains("mx.example.org is not among the hosts"), "{}", world.notes());
}

#[test]
fn testing_mode_does_not_lower_what_is_needed_in_any_case() {
    let mut world = world(Level::Sts(Fallback::Encrypt), "testing");
    world.server("192.0.2.1").usual = untrusted();
    assert_eq!(world.fate(), "unverified");
    assert!(world.notes().contains("(MTA-STS); mail goes all the same"), "{}", world.notes());
    world.server("192.0.2.1").usual = plain();
    assert!(world.fate().contains("STARTTLS is not offered, but tls_policy needs it"));
    assert_eq!(world.accepted(), 1);
}

#[test]
fn where_no_policy_is_in_force_it_is_as_the_level_says_otherwise() {
    type Change = fn(&mut World);
    let changes: [(&str, Change); 6] = [
        ("no record", |world| world.withdraw_record("example.org")),
        ("two records", |world| {
            let records = vec!["v=STSv1; id=1;".into(), "v=STSv1; id=2;".into()];
            world.texts.insert("_mta-sts.example.org".into(), records);
        }),
        ("a malformed record", |world| {
            world.texts.insert("_mta-sts.example.org".into(), vec!["v=STSv1; id=;".into()]);
        }),
        ("name servers fail", |world| {
            world.broken_names.insert("_mta-sts.example.org".into(), ResponseCode::ServFail);
        }),
        ("no host", |world| drop(world.addresses.remove(HOST))),
        ("none any more", |world| world.publish("example.org", "1", "none", &[])),
    ];
    for (what, change) in changes {
        let mut may = world(sts(), "enforce");
        change(&mut may);
        may.server("192.0.2.1").usual = plain();
        assert_eq!(may.fate(), "plain text", "{what}");
        let mut encrypt = world(Level::Sts(Fallback::Encrypt), "enforce");
        change(&mut encrypt);
        encrypt.server("192.0.2.1").usual = plain();
        assert!(encrypt.fate().contains("STARTTLS is not offered, but tls_policy needs it"), "{what}");
    }
}

/// What a host may answer instead of a policy, and what is said of it.
fn wrong_answers() -> Vec<(Result<HttpsResponse, HttpsError>, &'static str)> {
    let good = text("enforce", &["mx.example.org"], WEEK);
    let typed = |content_type: Option<&str>| {
        Ok(HttpsResponse { content_type: content_type.map(Into::into), ..response(&good) })
    };
    let certificate = HttpsTrouble::Certificate(CertificateTrouble::Expired);
    vec![
        (Err(failure(HttpsTrouble::Unreachable)), "so it is"),
        (Err(failure(HttpsTrouble::TimedOut)), "so it is"),
        (Err(failure(HttpsTrouble::TooLong)), "so it is"),
        (Err(failure(HttpsTrouble::Malformed)), "so it is"),
        (Err(failure(HttpsTrouble::Tls)), "so it is"),
        (Err(failure(certificate)), "so it is"),
        (Ok(HttpsResponse { status: 404, ..response(&good) }), "the status 404"),
        (Ok(HttpsResponse { status: 301, ..response(&good) }), "the status 301"),
        (Ok(HttpsResponse { status: 206, ..response(&good) }), "the status 206"),
        (typed(None), "is not text/plain"),
        (typed(Some("text/html")), "is not text/plain"),
        (Ok(response("")), "version: STSv1"),
        (Ok(response(&good.replace("STSv1", "STSv2"))), "version: STSv1"),
        (Ok(response(&good.replace("enforce", "strict"))), "mode"),
        (Ok(response(&good.replace("max_age", "age"))), "max_age"),
        (Ok(response(&good.replace("mx: ", "mx: *"))), "names no mail host"),
    ]
}

#[test]
fn a_policy_that_cannot_be_fetched_is_none_and_is_not_fetched_again_soon() {
    for (answer, told) in wrong_answers() {
        let mut world = world(sts(), "enforce");
        world.answer_web(HOST, answer.clone());
        world.server("192.0.2.1").usual = plain();
        assert_eq!(world.fate(), "plain text", "{answer:?}");
        assert!(world.notes().contains(told), "{answer:?}: {}", world.notes());
        world.run_for(Duration::from_secs(290));
        assert_eq!(world.fate(), "plain text");
        assert_eq!(world.fetched.len(), 1, "{answer:?}: five minutes lie between two tries");
        // A new id is tried at once.
        world.texts.insert("_mta-sts.example.org".into(), vec!["v=STSv1; id=2;".into()]);
        world.run_for(Duration::from_secs(290));
        world.answer_web(HOST, Ok(response(&text("enforce", &["mx.example.org"], WEEK))));
        assert!(world.fate().contains("STARTTLS is not offered, but MTA-STS needs it"));
    }
}

#[test]
fn the_time_between_two_tries_doubles_up_to_a_day() {
    let mut world = world(sts(), "enforce");
    world.answer_web(HOST, Err(failure(HttpsTrouble::TimedOut)));
    for _ in 0..6 * 24 * 60 / 5 {
        assert_eq!(world.fate(), "verified");
        world.run_for(Duration::from_secs(5 * 60));
    }
    let times: Vec<u64> = world.fetched.iter().map(|(at, _)| at.as_micros() / 60_000_000).collect();
    let pauses: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (pause, expected) in pauses.iter().zip([5, 10, 20, 40, 80, 160, 320, 640, 1280, 1440, 1440]) {
        assert!((expected..=expected + 10).contains(pause), "{pauses:?}");
    }
    assert!(pauses.len() > 9, "{pauses:?}");
}

#[test]
fn a_policy_that_is_known_stays_in_force_whatever_happens_to_its_record_and_its_host() {
    type Change = fn(&mut World);
    let changes: [(&str, Change); 6] = [
        ("no record", |world| world.withdraw_record("example.org")),
        ("two records", |world| {
            let records = vec!["v=STSv1; id=2;".into(), "v=STSv1; id=3;".into()];
            world.texts.insert("_mta-sts.example.org".into(), records);
        }),
        ("a malformed record", |world| {
            world.texts.insert("_mta-sts.example.org".into(), vec!["v=STSv1; id=;".into()]);
        }),
        ("name servers fail", |world| {
            world.broken_names.insert("_mta-sts.example.org".into(), ResponseCode::ServFail);
        }),
        ("no host", |world| {
            world.publish("example.org", "2", "none", &[]);
            world.addresses.remove(HOST);
        }),
        ("the host fails", |world| {
            world.publish("example.org", "2", "none", &[]);
            world.answer_web(HOST, Err(failure(HttpsTrouble::TimedOut)));
        }),
    ];
    for is_restarted in [false, true] {
        for (what, change) in changes {
            let mut world = world(sts(), "enforce");
            assert_eq!(world.fate(), "MTA-STS");
            change(&mut world);
            // As long as its host says the same, it is renewed.
            world.web.clear();
            world.run_for(Duration::from_secs(1000));
            if is_restarted {
                world.restart_with(settings_of(sts()));
            }
            world.server("192.0.2.1").usual = plain();
            assert!(world.fate().contains("but MTA-STS needs it"), "{what}, restarted: {is_restarted}");
            world.run_days(3);
            assert_eq!(world.accepted(), 1, "{what}, restarted: {is_restarted}");
            // It expires after a week.
            world.run_days(5);
            assert_eq!(world.fate(), "plain text", "{what}, restarted: {is_restarted}");
        }
    }
}

#[test]
fn wrong_answers_leave_a_known_policy_in_force_and_are_warned_of() {
    for (answer, told) in wrong_answers() {
        let mut world = world(sts(), "enforce");
        assert_eq!(world.fate(), "MTA-STS");
        world.publish("example.org", "2", "none", &[]);
        world.answer_web(HOST, answer.clone());
        world.run_for(Duration::from_secs(1000));
        world.server("192.0.2.1").usual = plain();
        assert!(world.fate().contains("but MTA-STS needs it"), "{answer:?}");
        let is_warning =
            |event: &Event| event.level() == crate::event::Level::Warning && event.to_string().contains(told);
        assert!(world.events.iter().any(is_warning), "{answer:?}: {}", world.notes());
    }
}

#[test]
fn a_record_with_the_id_that_is_known_spares_the_fetch_and_one_with_another_id_causes_it() {
    let mut world = world(sts(), "enforce");
    for _ in 0..3 {
        assert_eq!(world.fate(), "MTA-STS");
        world.run_for(Duration::from_secs(1000));
    }
    assert_eq!(world.fetched_hosts(), [HOST]);
    world.publish("example.org", "2", "testing", &["mx.example.org"]);
    assert_eq!(world.fate(), "verified");
    assert_eq!(world.fetched_hosts(), [HOST, HOST]);
    let stored: Vec<String> = world.outbox.policies().map(|stored| stored.id.to_string()).collect();
    assert_eq!(stored, ["2"]);
}

#[test]
fn a_domain_that_says_none_is_let_go() {
    let mut world = world(sts(), "enforce");
    assert_eq!(world.fate(), "MTA-STS");
    world.publish("example.org", "2", "none", &[]);
    world.run_for(Duration::from_secs(1000));
    world.server("192.0.2.1").usual = plain();
    assert_eq!(world.fate(), "plain text");
    // Nobody is alarmed that its host goes then.
    world.withdraw_record("example.org");
    world.web.clear();
    world.run_days(3);
    assert_eq!(world.fate(), "plain text");
    assert!(!world.notes().contains("cannot fetch"), "{}", world.notes());
}

#[test]
fn a_policy_is_read_from_the_database_after_a_restart_and_asked_for_once() {
    let mut world = world(sts(), "enforce");
    assert_eq!(world.fate(), "MTA-STS");
    world.restart_with(settings_of(sts()));
    world.outbox.asked.clear();
    for _ in 0..3 {
        assert_eq!(world.fate(), "MTA-STS");
    }
    assert_eq!(world.outbox.asked.get("policy"), Some(&1));
    assert_eq!(world.fetched_hosts(), [HOST]);
}

#[test]
fn a_policy_that_the_database_garbles_is_as_good_as_none() {
    let mut world = world(sts(), "enforce");
    assert_eq!(world.fate(), "MTA-STS");
    world.outbox.garble_policies();
    world.restart_with(settings_of(sts()));
    assert_eq!(world.fate(), "MTA-STS");
    assert_eq!(world.fetched_hosts(), [HOST, HOST]);
}

#[test]
fn mail_waits_while_the_database_does_not_say_whether_there_is_a_policy() {
    let mut world = world(sts(), "enforce");
    assert_eq!(world.fate(), "MTA-STS");
    world.restart_with(settings_of(sts()));
    world.withdraw_record("example.org");
    world.outbox.failing.insert("policy", u32::MAX);
    world.server("192.0.2.1").usual = plain();
    let id = world.mail("a@example.net", "b@example.org", "x");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(30));
    assert_eq!(world.attempts.len(), 1, "nothing is connected to");
    assert!(world.failures(id).is_empty(), "and nothing has failed");
    world.outbox.failing.clear();
    world.run_for(Duration::from_secs(4000));
    assert!(world.failures(id)[0].contains("but MTA-STS needs it"), "{}", world.notes());
}

#[test]
fn a_policy_that_cannot_be_stored_is_used_from_memory_also_after_new_settings() {
    let mut world = world(sts(), "enforce");
    world.outbox.lacks_policies = true;
    assert_eq!(world.fate(), "MTA-STS");
    world.withdraw_record("example.org");
    world.run_for(Duration::from_secs(1000));
    world.server("192.0.2.1").usual = plain();
    assert!(world.fate().contains("but MTA-STS needs it"));
    world.input(Input::Settings(Box::new(settings_of(sts()))));
    world.run_for(Duration::from_secs(4000));
    assert_eq!(world.accepted(), 1);
    // It is tried again to store it.
    world.outbox.lacks_policies = false;
    world.input(Input::Settings(Box::new(settings_of(sts()))));
    world.run_for(Duration::from_secs(10));
    assert_eq!(world.outbox.policies().count(), 1);
}

#[test]
fn what_the_administrator_deletes_is_forgotten_with_new_settings() {
    let mut world = world(sts(), "enforce");
    assert_eq!(world.fate(), "MTA-STS");
    world.outbox.delete_policies();
    world.withdraw_record("example.org");
    world.run_for(Duration::from_secs(1000));
    world.server("192.0.2.1").usual = plain();
    assert!(world.fate().contains("but MTA-STS needs it"));
    world.input(Input::Settings(Box::new(settings_of(sts()))));
    assert_eq!(world.fate(), "plain text");
}

#[test]
fn a_policy_from_the_future_is_in_force_and_fetched_again() {
    let mut world = world(sts(), "enforce");
    assert_eq!(world.fate(), "MTA-STS");
    world.now.wall.0 -= 24 * 60 * 60;
    world.run_for(Duration::from_secs(1000));
    world.server("192.0.2.1").usual = plain();
    assert!(world.fate().contains("but MTA-STS needs it"));
    assert_eq!(world.fetched_hosts(), [HOST, HOST]);
}

#[test]
fn policies_are_fetched_again_before_they_expire_whether_or_not_there_is_mail() {
    let mut world = world(sts(), "enforce");
    assert_eq!(world.fate(), "MTA-STS");
    world.restart_with(settings_of(sts()));
    world.run_days(10);
    let hours: Vec<u64> = world.fetched.iter().map(|(at, _)| at.as_micros() / 3_600_000_000).collect();
    assert!((11..=20).contains(&hours.len()), "{hours:?}");
    assert!(hours.windows(2).all(|pair| (12..=22).contains(&(pair[1] - pair[0]))), "{hours:?}");
    // It never expired, although its record is gone since.
    world.withdraw_record("example.org");
    world.run_days(10);
    world.server("192.0.2.1").usual = plain();
    assert!(world.fate().contains("but MTA-STS needs it"));
    // After three months without mail nobody cares any more.
    world.outbox.mails.clear();
    world.run_days(91);
    let count = world.fetched.len();
    world.run_days(5);
    assert_eq!(world.fetched.len(), count);
}

#[test]
fn mail_does_not_wait_for_a_policy_that_is_only_fetched_again() {
    let mut world = world(sts(), "enforce");
    assert_eq!(world.fate(), "MTA-STS");
    let slow = (Duration::from_secs(59), Ok(response(&text("enforce", &["mx.example.org"], WEEK))));
    world.web.insert(HOST.into(), slow);
    while world.fetched.len() < 2 {
        world.run_for(Duration::from_secs(10));
    }
    world.mail("a@example.net", "b@example.org", "x");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.accepted(), 2, "{}", world.notes());
}

#[test]
fn slow_hosts_hold_up_no_other_mail_and_theirs_for_two_minutes_at_most() {
    let mut world = bare_world(sts());
    let count = 60;
    for number in 0..count {
        let domain = format!("slow{number}.example");
        world.exchange(&domain, 10, &format!("mx.{domain}"), "192.0.2.7").usual = trusted();
        world.publish(&domain, "1", "enforce", &["other.example"]);
        let late = (Duration::from_secs(60), Err(failure(HttpsTrouble::TimedOut)));
        world.web.insert(format!("mta-sts.{domain}"), late);
        world.mail("a@example.net", &format!("b@{domain}"), "x");
    }
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.most_fetches, 12);
    // A domain without a policy has nothing to wait for.
    world.mail("a@example.net", "b@example.org", "x");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.accepted(), 1);
    world.run_for(Duration::from_secs(125));
    assert_eq!(world.server("192.0.2.7").accepted.len(), count, "{}", world.notes());
    assert_eq!(world.most_fetches, 12);
}

#[test]
fn one_fetch_serves_all_who_wait() {
    let mut world = world(sts(), "enforce");
    world.web.get_mut(HOST).unwrap().0 = Duration::from_secs(5);
    let probe = |id| {
        let next_hop = NextHop::Domain(Domain::parse("example.org").unwrap());
        let subject = explanation::Subject::NextHop(next_hop);
        Input::Inquiry(InquiryId(id), explanation::Inquiry::Explain(subject))
    };
    world.input(probe(1));
    world.input(probe(2));
    assert_eq!(world.fate(), "MTA-STS");
    assert_eq!(world.fetched_hosts(), [HOST]);
    assert_eq!(world.answers.len(), 2);
    let (_, explanation::Answer::Explanation(explained)) = &world.answers[0] else { panic!() };
    let route = explained.destination.as_ref().unwrap().route.as_ref().unwrap();
    let policy = route.sts.as_ref().unwrap().policy.as_ref().unwrap();
    assert_eq!((policy.policy.mode, policy.id.as_str()), (crate::sts::Mode::Enforce, "1"));
    assert_eq!(policy.expires.0 - policy.fetched.0, i64::from(WEEK));
}

/// The key that the records name.
const KEY: u8 = 7;

fn with_records(mut world: World, is_route_secure: bool, records: &[TlsaRecord]) -> World {
    let names = ["mx.example.org", "_25._tcp.mx.example.org"];
    world.signed.extend(names.map(str::to_owned));
    if is_route_secure {
        world.signed.insert("example.org".into());
    }
    world.certificates.insert("_25._tcp.mx.example.org".into(), records.into());
    world
}

fn record(key: u8) -> TlsaRecord {
    TlsaRecord { usage: 3, selector: 1, matching: 1, data: Bytes::from(vec![key; 32]) }
}

#[test]
fn dane_comes_before_the_policy() {
    let unusable = TlsaRecord { usage: 0, ..record(9) };
    let not_named: &[&str] = &["other.example.org"];
    let named: &[&str] = &["mx.example.org"];
    // Whether the MX records are secure, the records, the certificate, the hosts of the policy, and what becomes of mail.
    for (is_secure, records, is_trusted, hosts, expected) in [
        (true, record(KEY), false, named, "DANE-EE"),
        (true, record(KEY), false, not_named, "DANE-EE"),
        (true, record(9), true, named, "none of the TLSA records"),
        (true, unusable.clone(), true, named, "MTA-STS"),
        (true, unusable.clone(), false, named, "(MTA-STS)"),
        (true, unusable.clone(), true, not_named, "is not among the hosts"),
        (false, record(KEY), false, named, "DANE-EE"),
        (false, record(KEY), true, not_named, "is not among the hosts"),
        (false, record(9), true, named, "none of the TLSA records"),
    ] {
        let mut world = with_records(bare_world(auto()), is_secure, core::slice::from_ref(&records));
        world.publish("example.org", "1", "enforce", hosts);
        let usual = if is_trusted { trusted() } else { untrusted() };
        world.server("192.0.2.1").usual = Behaviour { key: KEY, ..usual };
        let fate = world.fate();
        assert!(fate.contains(expected), "secure: {is_secure}, {records}, {is_trusted}, {hosts:?}: {fate}");
    }
}

#[test]
fn where_there_are_no_records_the_policy_counts() {
    let mut world = world(auto(), "enforce");
    assert_eq!(world.fate(), "MTA-STS");
    world.server("192.0.2.1").usual = untrusted();
    assert!(world.fate().contains("(MTA-STS)"));
}

#[test]
fn no_policy_excuses_a_lookup_of_records_that_fails() {
    let mut world = with_records(world(auto(), "enforce"), true, &[record(KEY)]);
    world.broken_names.insert("_25._tcp.mx.example.org".into(), ResponseCode::ServFail);
    let text = world.fate();
    assert!(text.contains("looking up the TLSA records"), "{text}");
    assert_eq!(world.attempts, []);
}

#[test]
fn records_that_prove_nothing_demand_tls_even_in_testing_mode() {
    let unusable = TlsaRecord { usage: 0, ..record(9) };
    let mut world = with_records(world(auto(), "testing"), true, &[unusable]);
    world.server("192.0.2.1").usual = untrusted();
    assert_eq!(world.fate(), "unverified");
    world.server("192.0.2.1").usual = plain();
    let text = world.fate();
    assert!(text.contains("STARTTLS is not offered, but DANE needs it"), "{text}");
}
