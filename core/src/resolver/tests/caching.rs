//! What is remembered, joined, cancelled and put off.

use alloc::format;
use alloc::vec;

use super::*;
use crate::resolver::cache::{ENTRIES_LIMIT, FAILURE_SPAN, NEGATIVE_LIMIT, POSITIVE_LIMIT};

const SECOND: Duration = Duration::from_secs(1);

/// Answers a lookup and returns for how many of these spans after it the answer is still remembered.
fn remembered(reply: impl Fn(&mut Scene, &Sent), spans: &[Duration]) -> Vec<bool> {
    let mut results = vec![];
    for span in spans {
        let mut scene = Scene::new();
        scene.mx("example.org");
        let sent = scene.one_sent();
        reply(&mut scene, &sent);
        let answer = scene.whole_answer();
        scene.pass(*span);
        scene.mx("EXAMPLE.org");
        let outputs = scene.outputs();
        let is_remembered =
            matches!(outputs.as_slice(), [ResolverOutput::Answer(_, again)] if *again == answer);
        assert!(is_remembered || matches!(outputs.as_slice(), [ResolverOutput::Datagram { .. }]));
        results.push(is_remembered);
    }
    results
}

#[test]
fn records_are_kept_for_the_least_time_to_live_in_the_chain() {
    let reply = |scene: &mut Scene, sent: &Sent| {
        scene.reply_with(
            sent,
            vec![
                record("example.org.", 20, RData::CNAME(CNAME(name("b.example.")))),
                record("b.example.", 50, RData::MX(MX::new(1, name("mx.example.")))),
            ],
        );
    };
    assert_eq!(remembered(reply, &[SECOND * 20 - Duration::from_micros(1), SECOND * 20]), [true, false]);
}

#[test]
fn records_are_kept_for_a_day_at_most() {
    let reply = |scene: &mut Scene, sent: &Sent| {
        let data = RData::MX(MX::new(1, name("mx.example.")));
        scene.reply_with(sent, vec![record("example.org.", 604_800, data)]);
    };
    assert_eq!(remembered(reply, &[POSITIVE_LIMIT - SECOND, POSITIVE_LIMIT]), [true, false]);
}

#[test]
fn records_without_time_to_live_are_not_kept() {
    for ttl_s in [0, 1 << 31] {
        // RFC 2181 section 8: with the highest bit set it is zero.
        let reply = |scene: &mut Scene, sent: &Sent| {
            let data = RData::MX(MX::new(1, name("mx.example.")));
            scene.reply_with(sent, vec![record("example.org.", ttl_s, data)]);
        };
        assert_eq!(remembered(reply, &[Duration::ZERO]), [false]);
    }
}

#[test]
fn denials_are_kept_as_their_zone_says() {
    // RFC 2308 section 5: the lesser of the SOA record's own time to live and its minimum.
    for code in [ResponseCode::NoError, ResponseCode::NXDomain] {
        let deny = |soa: Option<Record>| {
            move |scene: &mut Scene, sent: &Sent| {
                let mut response = sent.response();
                response.metadata.response_code = code;
                response.authorities.extend(soa.clone());
                scene.reply(sent, &response);
            }
        };
        let spans = [SECOND * 29, SECOND * 30];
        assert_eq!(remembered(deny(Some(soa_record("org.", 30, 60))), &spans), [true, false]);
        assert_eq!(remembered(deny(Some(soa_record("org.", 60, 30))), &spans), [true, false]);
        let spans = [NEGATIVE_LIMIT - SECOND, NEGATIVE_LIMIT];
        assert_eq!(remembered(deny(Some(soa_record("org.", 86_400, 86_400))), &spans), [true, false]);
        assert_eq!(remembered(deny(None), &[Duration::ZERO]), [false]);
        assert_eq!(remembered(deny(Some(soa_record("net.", 60, 60))), &[Duration::ZERO]), [false]);
    }
}

#[test]
fn failures_are_kept_briefly() {
    // RFC 9520 section 3.2.
    let reply = |scene: &mut Scene, sent: &Sent| scene.reply_with_code(sent, ResponseCode::ServFail);
    assert_eq!(remembered(reply, &[SECOND, FAILURE_SPAN]), [true, false]);
}

#[test]
fn equal_lookups_are_joined() {
    let mut scene = Scene::new();
    let first = scene.mx("example.org");
    let second = scene.mx("Example.ORG");
    let sent = scene.one_sent();
    scene.reply_with(&sent, vec![mx_record("example.org.", 1, "mx.example.")]);
    let expected = hosts(&[(1, "mx.example")]);
    assert_eq!(scene.answers(), [(first, expected.clone()), (second, expected)]);
    scene.assert_clean();
}

#[test]
fn a_cancelled_lookup_is_not_answered_and_ends_its_question() {
    let mut scene = Scene::new();
    let first = scene.addresses("mx.example", BOTH);
    let second = scene.addresses("mx.example", IPV4);
    let (ipv4, ipv6) = both_sent(&mut scene);
    scene.resolver.cancel(first);
    assert_eq!(scene.outputs(), [ResolverOutput::CloseDatagram(ipv6.query)]);
    scene.reply_with(&ipv4, vec![a_record("mx.example.", 1)]);
    scene.resolver.cancel(second);
    assert_eq!(scene.outputs(), [ResolverOutput::CloseDatagram(ipv4.query)], "not even at the last moment");
    scene.assert_clean();
    scene.resolver.cancel(first);
    assert_eq!(scene.outputs(), []);
}

#[test]
fn the_target_of_an_alias_is_remembered_and_bounds_what_hangs_on_it() {
    for (alias_ttl_s, remembered_s) in [(1000, 200), (50, 50)] {
        let mut scene = Scene::new();
        scene.addresses("host.example", IPV4);
        let sent = scene.one_sent();
        scene.reply_with(&sent, vec![a_record("host.example.", 1)]);
        scene.answer();
        scene.pass(SECOND * 100);
        scene.addresses("mx.example", IPV4);
        let sent = scene.one_sent();
        let target = RData::CNAME(CNAME(name("host.example.")));
        scene.reply_with(&sent, vec![record("mx.example.", alias_ttl_s, target)]);
        assert_eq!(scene.answer(), found(&["192.0.2.1"]));
        scene.pass(SECOND * (remembered_s - 1));
        scene.addresses("mx.example", IPV4);
        assert_eq!(scene.answer(), found(&["192.0.2.1"]));
        scene.pass(SECOND);
        scene.addresses("mx.example", IPV4);
        assert_eq!(scene.sent().len(), 1);
    }
}

#[test]
fn only_so_many_questions_are_asked_at_once() {
    let mut scene = Scene::new();
    let lookups: Vec<_> =
        (0..=CONCURRENT_QUESTIONS_LIMIT).map(|n| scene.mx(&format!("d{n}.example"))).collect();
    let sent = scene.sent();
    assert_eq!(sent.len(), CONCURRENT_QUESTIONS_LIMIT);
    scene.resolver.cancel(lookups[0]);
    assert_eq!(scene.resolver.poll_timeout(), Some(Instant::default()), "the next one may begin");
    scene.pass(Duration::ZERO);
    let last = scene.one_sent();
    assert_eq!(last.message().queries[0].name(), &name(&format!("d{CONCURRENT_QUESTIONS_LIMIT}.example.")));
    for sent in sent.iter().skip(1).chain([&last]) {
        scene.reply_with_code(sent, ResponseCode::NXDomain);
    }
    assert_eq!(scene.answers().len(), CONCURRENT_QUESTIONS_LIMIT);
    scene.assert_clean();
}

#[test]
fn the_cache_is_bounded_and_drops_what_expires_first() {
    let mut cache = Cache::default();
    let now = Instant::default();
    let question = |n: usize| {
        Question::new(&Domain::parse(&format!("d{n}.example")).unwrap(), QuestionType::Mx).unwrap()
    };
    let outcome = Conclusion {
        outcome: LookupOutcome::Mx(MxAnswer::NullMx),
        security: Security::Insecure,
        canonical: Canonical::Itself,
    };
    for n in 0..=ENTRIES_LIMIT {
        let ttl_s = if n == 7 { 60 } else { 300 };
        cache.insert(now, question(n), outcome.clone(), Some(ttl_s));
    }
    assert_eq!(cache.len(), ENTRIES_LIMIT);
    assert_eq!(cache.find(now, &question(7)), None);
    assert_eq!(cache.find(now, &question(8)), Some((outcome.clone(), 300)));
    cache.insert(now + SECOND * 300, question(8), outcome.clone(), Some(1));
    assert_eq!(cache.len(), 1, "what has expired is dropped");
    cache.insert(now + SECOND * 300, question(8), outcome, Some(2));
    assert_eq!(cache.len(), 1);
}

#[test]
fn a_change_of_settings_forgets_denials_and_failures_and_keeps_records() {
    let mut scene = Scene::new();
    for domain in ["found.example", "missing.example", "broken.example"] {
        scene.mx(domain);
        let sent = scene.one_sent();
        let mut response = sent.response();
        match domain {
            "found.example" => response.answers = vec![mx_record("found.example.", 1, "mx.example.")],
            "missing.example" => {
                response.metadata.response_code = ResponseCode::NXDomain;
                response.authorities = vec![soa_record("example.", 60, 60)];
            }
            _ => response.metadata.response_code = ResponseCode::ServFail,
        }
        scene.reply(&sent, &response);
        scene.answer();
    }
    assert_eq!(scene.resolver.cache.len(), 3);
    let settings = scene.resolver.settings.clone();
    scene.resolver.reconfigure(scene.now, settings);
    assert_eq!(scene.resolver.cache.len(), 1);
    scene.mx("found.example");
    assert_eq!(scene.answer(), hosts(&[(1, "mx.example")]));
}
