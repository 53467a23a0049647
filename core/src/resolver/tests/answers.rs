//! What answers mean.

use alloc::format;
use alloc::vec;

use super::*;
use crate::resolver::chain::{ADDRESSES_LIMIT, ALIASES_LIMIT, MAIL_HOSTS_LIMIT};
use crate::system_error::MachineTrouble;

#[test]
fn mail_hosts_are_sorted_by_preference() {
    // RFC 5321 section 5.1.
    let answer = Scene::mx_of(vec![
        mx_record("example.org.", 20, "b.example."),
        mx_record("example.org.", 10, "c.example."),
        mx_record("Example.ORG.", 10, "A.example."),
    ]);
    assert_eq!(answer, hosts(&[(10, "c.example"), (10, "a.example"), (20, "b.example")]));
}

#[test]
fn a_null_mx_is_one_record_with_the_root_as_target() {
    // RFC 7505 section 3; the preference does not matter.
    let answer = Scene::mx_of(vec![mx_record("example.org.", 7, ".")]);
    assert_eq!(answer, mx(MxAnswer::NullMx));
}

#[test]
fn a_root_target_among_others_is_dropped() {
    let answer =
        Scene::mx_of(vec![mx_record("example.org.", 0, "."), mx_record("example.org.", 5, "a.example.")]);
    assert_eq!(answer, hosts(&[(5, "a.example")]));
}

#[test]
fn unusable_mail_hosts_are_no_reason_for_the_implicit_mx() {
    // RFC 5321 section 5.1: MX records that are present but unusable are an error.
    let two_roots = vec![mx_record("example.org.", 0, "."), mx_record("example.org.", 1, ".")];
    assert_eq!(Scene::mx_of(two_roots), hosts(&[]));
    for labels in [[&b"a.b"[..], b"example"], [b"a b", b"example"], [b"a\r\n", b"example"], [b"-", b"\xff"]] {
        let host = Name::from_labels(labels).unwrap();
        let unusable = record("example.org.", 300, RData::MX(MX::new(0, host)));
        assert_eq!(Scene::mx_of(vec![unusable.clone()]), hosts(&[]));
        let usable = mx_record("example.org.", 1, "a.example.");
        assert_eq!(Scene::mx_of(vec![unusable, usable]), hosts(&[(1, "a.example")]));
    }
}

#[test]
fn only_the_most_preferred_of_very_many_mail_hosts_are_kept() {
    let records = (0..200).rev().map(|n| mx_record("example.org.", n, &format!("m{n}.example."))).collect();
    let Answer::Mx(Ok(Resolved { value: MxAnswer::Records(kept), .. })) = Scene::mx_of(records) else {
        panic!()
    };
    let preferences: Vec<u16> = kept.iter().map(|(preference, _)| *preference).collect();
    assert_eq!(preferences, (0..u16::try_from(MAIL_HOSTS_LIMIT).unwrap()).collect::<Vec<_>>());
}

#[test]
fn a_domain_without_mx_records_has_the_implicit_mx() {
    assert_eq!(Scene::mx_of(vec![]), mx(MxAnswer::NoRecords));
}

#[test]
fn nxdomain_means_that_the_domain_does_not_exist() {
    let mut scene = Scene::new();
    scene.mx("example.org");
    let sent = scene.one_sent();
    scene.reply_with_code(&sent, ResponseCode::NXDomain);
    assert_eq!(scene.answer(), Answer::Mx(Err(LookupError::NameDoesNotExist)));
}

#[test]
fn aliases_are_followed_inside_an_answer() {
    // RFC 5321 section 5.1, also where the records come before the aliases.
    let answer = Scene::mx_of(vec![
        mx_record("c.example.", 10, "mx.example."),
        alias("B.example.", "c.example."),
        alias("example.org.", "b.example."),
        mx_record("unrelated.example.", 0, "evil.example."),
    ]);
    assert_eq!(answer, hosts(&[(10, "mx.example")]));
}

#[test]
fn aliases_whose_target_is_not_in_the_answer_are_asked_for() {
    let mut scene = Scene::new();
    scene.mx("example.org");
    let sent = scene.one_sent();
    scene.reply_with(&sent, vec![alias("example.org.", "b.example.")]);
    let sent = scene.one_sent();
    assert_eq!(sent.message().queries[0].name(), &name("b.example."));
    scene.reply_with(&sent, vec![mx_record("b.example.", 10, "mx.example.")]);
    assert_eq!(scene.answer(), hosts(&[(10, "mx.example")]));
}

#[test]
fn a_denial_counts_for_the_end_of_the_chain() {
    // RFC 6604 section 3 and RFC 2308 section 2.
    for (code, expected) in [
        (ResponseCode::NXDomain, Answer::Mx(Err(LookupError::NameDoesNotExist))),
        (ResponseCode::NoError, mx(MxAnswer::NoRecords)),
    ] {
        let mut scene = Scene::new();
        scene.mx("example.org");
        let sent = scene.one_sent();
        let mut response = sent.response();
        response.metadata.response_code = code;
        response.answers = vec![alias("example.org.", "b.example.")];
        response.authorities = vec![soa_record("example.", 60, 60)];
        scene.reply(&sent, &response);
        assert_eq!(scene.answer(), expected);
    }
}

#[test]
fn a_loop_of_aliases_is_a_temporary_failure() {
    let looped = vec![alias("example.org.", "b.example."), alias("b.example.", "example.org.")];
    assert!(temporary(Scene::mx_of(looped)).contains("CNAME"));
    assert!(temporary(Scene::mx_of(vec![alias("example.org.", "example.org.")])).contains("example.org"));
}

#[test]
fn a_loop_over_several_answers_ends_when_it_closes() {
    let mut scene = Scene::new();
    scene.mx("example.org");
    let sent = scene.one_sent();
    scene.reply_with(&sent, vec![alias("example.org.", "b.example.")]);
    let sent = scene.one_sent();
    scene.reply_with(&sent, vec![alias("b.example.", "Example.ORG.")]);
    temporary(scene.answer());
}

#[test]
fn a_chain_of_aliases_is_followed_to_its_limit_and_no_further() {
    for (count, is_followed) in [(ALIASES_LIMIT, true), (ALIASES_LIMIT + 1, false)] {
        let mut scene = Scene::new();
        scene.mx("a0.example");
        for n in 0..count {
            let sent = scene.one_sent();
            let (owner, target) = (format!("a{n}.example."), format!("a{}.example.", n + 1));
            scene.reply_with(&sent, vec![alias(&owner, &target)]);
        }
        assert_eq!(scene.sent_or_answered(), if is_followed { (1, 0) } else { (0, 1) });
    }
}

impl Scene {
    fn sent_or_answered(&mut self) -> (usize, usize) {
        let outputs = self.outputs();
        let sent = outputs.iter().filter(|output| matches!(output, ResolverOutput::Datagram { .. })).count();
        let answered = outputs.iter().filter(|output| matches!(output, ResolverOutput::Answer(..))).count();
        (sent, answered)
    }
}

#[test]
fn both_families_are_waited_for() {
    let mut scene = Scene::new();
    scene.addresses("mx.example", BOTH);
    let (ipv4, ipv6) = both_sent(&mut scene);
    scene.reply_with(&ipv4, vec![a_record("mx.example.", 1), a_record("mx.example.", 2)]);
    assert_eq!(scene.answers(), []);
    scene.reply_with(&ipv6, vec![aaaa_record("mx.example.", 1)]);
    assert_eq!(scene.answer(), found(&["2001:db8::1", "192.0.2.1", "192.0.2.2"]));
}

#[test]
fn only_the_wanted_family_is_asked_for() {
    let mut scene = Scene::new();
    scene.addresses("mx.example", IPV4);
    let sent = scene.one_sent();
    assert!(!is_ipv6_question(&sent));
    scene.reply_with(&sent, vec![aaaa_record("mx.example.", 1), a_record("mx.example.", 1)]);
    assert_eq!(scene.answer(), found(&["192.0.2.1"]));
    scene.addresses("mx.example", Families { ipv4: false, ipv6: false });
    assert!(matches!(scene.answer(), Answer::Addresses(Err(LookupError::Local(_)))));
}

/// Returns what two families come to: an address, nothing, no such name, or a failure.
fn combined(ipv4: &str, ipv6: &str) -> Answer {
    let mut scene = Scene::new();
    scene.addresses("mx.example", BOTH);
    let (sent_ipv4, sent_ipv6) = both_sent(&mut scene);
    for (sent, kind) in [(sent_ipv4, ipv4), (sent_ipv6, ipv6)] {
        match kind {
            "address" if is_ipv6_question(&sent) => {
                scene.reply_with(&sent, vec![aaaa_record("mx.example.", 1)])
            }
            "address" => scene.reply_with(&sent, vec![a_record("mx.example.", 1)]),
            "no destination" if is_ipv6_question(&sent) => {
                scene.reply_with(
                    &sent,
                    vec![record("mx.example.", 300, RData::AAAA(AAAA::new(0, 0, 0, 0, 0, 0, 0, 0)))],
                );
            }
            "no destination" => {
                scene.reply_with(&sent, vec![record("mx.example.", 300, RData::A(A::new(0, 0, 0, 0)))]);
            }
            "nothing" => scene.reply_with(&sent, vec![]),
            "no such name" => scene.reply_with_code(&sent, ResponseCode::NXDomain),
            "failure" => scene.reply_with_code(&sent, ResponseCode::ServFail),
            "our failure" => {
                let error = ConnectError::local(MachineTrouble::Descriptors, "no descriptors");
                scene.resolver.handle_datagram_failed(scene.now, sent.query, error);
            }
            other => panic!("{other}"),
        }
    }
    scene.answer()
}

#[test]
fn an_address_is_used_whatever_became_of_the_other_family() {
    for other in ["nothing", "no such name", "failure", "our failure", "no destination"] {
        assert_eq!(combined("address", other), found(&["192.0.2.1"]), "{other}");
        assert_eq!(combined(other, "address"), found(&["2001:db8::1"]), "{other}");
    }
}

#[test]
fn without_an_address_a_failure_weighs_more_than_a_denial() {
    let error = |ipv4, ipv6| {
        let Answer::Addresses(Err(error)) = combined(ipv4, ipv6) else { panic!() };
        error
    };
    assert_eq!(error("nothing", "nothing"), LookupError::NoAddress);
    assert_eq!(error("no destination", "no destination"), LookupError::NoAddress);
    assert!(matches!(error("no destination", "failure"), LookupError::Temporary(_)));
    for (ipv4, ipv6) in
        [("nothing", "no such name"), ("no such name", "nothing"), ("no such name", "no such name")]
    {
        assert_eq!(error(ipv4, ipv6), LookupError::NameDoesNotExist);
    }
    // RFC 4074 section 4.2: what denies the name may only mean that it has no IPv6 address.
    for (ipv4, ipv6) in [("failure", "nothing"), ("failure", "no such name"), ("no such name", "failure")] {
        assert!(matches!(error(ipv4, ipv6), LookupError::Temporary(_)));
    }
    assert!(matches!(error("our failure", "failure"), LookupError::Local(_)));
}

#[test]
fn neither_family_crowds_out_the_other() {
    for (ipv4_count, ipv6_count, ipv6_kept) in [(40, 40, 16), (40, 3, 3), (3, 40, 29), (0, 40, 32)] {
        let mut scene = Scene::new();
        scene.addresses("mx.example", BOTH);
        let (ipv4, ipv6) = both_sent(&mut scene);
        scene.reply_with(&ipv4, (0..ipv4_count).map(|n| a_record("mx.example.", n)).collect());
        scene.reply_with(&ipv6, (0..ipv6_count).map(|n| aaaa_record("mx.example.", n)).collect());
        let Answer::Addresses(Ok(Resolved { value: kept, .. })) = scene.answer() else { panic!() };
        assert_eq!(kept.len(), ADDRESSES_LIMIT);
        assert_eq!(kept.iter().filter(|address| address.is_ipv6()).count(), ipv6_kept);
    }
}

#[test]
fn of_several_addresses_those_that_can_be_sent_to_are_kept() {
    let mut scene = Scene::new();
    scene.addresses("mx.example", IPV4);
    let sent = scene.one_sent();
    let nowhere = [[0, 0, 0, 0], [224, 0, 0, 1], [255, 255, 255, 255]]
        .map(|[a, b, c, d]| record("mx.example.", 300, RData::A(A::new(a, b, c, d))));
    scene.reply_with(&sent, [&nowhere[..], &[a_record("mx.example.", 9)]].concat());
    assert_eq!(scene.answer(), found(&["192.0.2.9"]));
}

#[test]
fn addresses_are_found_at_the_end_of_aliases() {
    let mut scene = Scene::new();
    scene.addresses("mx.example", IPV4);
    let sent = scene.one_sent();
    scene.reply_with(&sent, vec![alias("mx.example.", "host.example."), a_record("host.example.", 9)]);
    assert_eq!(scene.answer(), found(&["192.0.2.9"]));
}

#[test]
fn an_address_that_is_given_twice_is_one() {
    // RFC 2181 section 5: a set of records has no two alike, but who sends one need not keep to that.
    let mut scene = Scene::new();
    scene.addresses("mx.example", Families { ipv4: true, ipv6: false });
    let sent = scene.one_sent();
    scene.reply_with(&sent, [1, 2, 1, 1, 2].map(|last| a_record("mx.example.", last)).into());
    assert_eq!(scene.answer(), found(&["192.0.2.1", "192.0.2.2"]));
}
