//! What is secure, and the kinds of records that prove who a server is.

use alloc::string::ToString;

use hickory_proto::rr::rdata::{TLSA, TXT};

use super::hostile::raw_answer;
use super::*;
use crate::settings::NameServer;
use crate::tls::TlsaRecord;

fn believing(believed: &[bool]) -> Scene {
    let mut scene = Scene::with_servers(u8::try_from(believed.len()).unwrap(), 1);
    let mut settings = scene.resolver.settings.clone();
    for (server, is_believed) in settings.servers.iter_mut().zip(believed) {
        server.is_believed = *is_believed;
    }
    scene.resolver = Resolver::new(settings, Rng::from_seed([1; 32]));
    scene
}

impl Scene {
    /// Answers with these records, and with the AD flag or without.
    fn reply_authentic(&mut self, sent: &Sent, answers: Vec<Record>, is_authentic: bool) {
        let mut response = sent.response();
        response.metadata.authentic_data = is_authentic;
        response.answers = answers;
        self.reply(sent, &response);
    }

    fn tlsa(&mut self, host: &str) -> LookupId {
        self.resolver.lookup_tlsa(self.now, &Domain::parse(host).unwrap(), 25, Prospect::Fresh)
    }
}

fn tlsa_record(owner: &str, data: &[u8]) -> Record {
    record(owner, 300, RData::TLSA(TLSA::new(3.into(), 1.into(), 1.into(), data.to_vec())))
}

fn security(answer: Answer) -> Security {
    match &answer {
        Answer::Mx(Ok(found)) => found.security,
        Answer::Addresses(Ok(found)) => found.security,
        Answer::Tlsa(Ok(found)) => found.security,
        Answer::Mx(_) | Answer::Addresses(_) | Answer::Tlsa(_) | Answer::Texts(_) | Answer::Alias(_) => {
            panic!("{answer:?}")
        }
    }
}

#[test]
fn only_servers_that_are_believed_are_asked_for_authentic_answers() {
    for is_believed in [false, true] {
        let mut scene = believing(&[is_believed]);
        scene.mx("example.org");
        assert_eq!(scene.one_sent().message().metadata.authentic_data, is_believed);
    }
}

#[test]
fn an_answer_is_as_secure_as_the_server_says_if_it_is_believed() {
    for (is_believed, is_authentic, expected) in [
        (false, false, Security::Insecure),
        (false, true, Security::Insecure),
        (true, false, Security::Insecure),
        (true, true, Security::Secure),
    ] {
        let mut scene = believing(&[is_believed]);
        scene.mx("example.org");
        let sent = scene.one_sent();
        scene.reply_authentic(&sent, vec![mx_record("example.org.", 1, "mx.example.")], is_authentic);
        assert_eq!(security(scene.whole_answer()), expected);
        // The cache says the same.
        scene.mx("example.org");
        assert_eq!(security(scene.whole_answer()), expected);
    }
}

#[test]
fn the_security_is_not_known_where_another_server_than_a_believed_one_answers_and_is_asked_for_again_soon() {
    let mut scene = believing(&[true, false]);
    scene.mx("example.org");
    let sent = scene.one_sent();
    scene.reply_with_code(&sent, ResponseCode::ServFail);
    let sent = scene.one_sent();
    assert_eq!(sent.to, server(2));
    scene.reply_authentic(&sent, vec![mx_record("example.org.", 1, "mx.example.")], true);
    assert_eq!(security(scene.whole_answer()), Security::Unknown);
    scene.pass(Duration::from_secs(6));
    scene.mx("example.org");
    let sent = scene.one_sent();
    assert_eq!(sent.to, server(1));
    scene.reply_authentic(&sent, vec![mx_record("example.org.", 1, "mx.example.")], true);
    assert_eq!(security(scene.whole_answer()), Security::Secure);
}

#[test]
fn a_chain_over_several_messages_is_as_secure_as_the_least_secure_of_them() {
    for (first, second) in [(true, true), (true, false), (false, true)] {
        let mut scene = believing(&[true]);
        scene.addresses("mx.example", IPV4);
        let sent = scene.one_sent();
        scene.reply_authentic(&sent, vec![alias("mx.example.", "host.example.")], first);
        let sent = scene.one_sent();
        scene.reply_authentic(&sent, vec![a_record("host.example.", 1)], second);
        let Answer::Addresses(Ok(found)) = scene.whole_answer() else { panic!() };
        assert_eq!(found.security == Security::Secure, first && second);
        assert_eq!(found.canonical, Canonical::Other(Domain::parse("host.example").unwrap()));
        // The end of the chain from the cache has its own security, and the new beginning too.
        scene.addresses("other.example", IPV4);
        let sent = scene.one_sent();
        scene.reply_authentic(&sent, vec![alias("other.example.", "mx.example.")], true);
        let Answer::Addresses(Ok(found)) = scene.whole_answer() else { panic!() };
        assert_eq!(found.security == Security::Secure, first && second);
        assert_eq!(found.canonical, Canonical::Other(Domain::parse("host.example").unwrap()));
    }
}

#[test]
fn an_alias_is_one_whatever_stands_at_its_end() {
    let mut scene = believing(&[true]);
    for (name, security, is_authentic) in
        [("mx.example", Security::Insecure, false), ("mx2.example", Security::Secure, true)]
    {
        scene.addresses(name, IPV4);
        let sent = scene.one_sent();
        let records = vec![
            alias(&format!("{name}."), "host.example."),
            alias("host.example.", "*.example."),
            a_record("*.example.", 1),
        ];
        scene.reply_authentic(&sent, records, is_authentic);
        let Answer::Addresses(Ok(found)) = scene.whole_answer() else { panic!() };
        assert_eq!((found.security, found.canonical), (security, Canonical::Unusable));
    }
    // What is known of the end of the aliases says so too: the name before it is nobody's canonical name.
    scene.addresses("other.example", IPV4);
    let sent = scene.one_sent();
    scene.reply_authentic(&sent, vec![alias("other.example.", "mx.example.")], true);
    let Answer::Addresses(Ok(found)) = scene.whole_answer() else { panic!() };
    assert_eq!((found.security, found.canonical), (Security::Insecure, Canonical::Unusable));
}

#[test]
fn a_host_is_secure_if_one_of_its_families_is() {
    for (ipv4, ipv6, expected) in [
        (Some(true), None, Security::Secure),
        (Some(false), None, Security::Insecure),
        (Some(true), Some(false), Security::Secure),
        (Some(false), Some(true), Security::Secure),
        (Some(false), Some(false), Security::Insecure),
    ] {
        let mut scene = believing(&[true]);
        scene.addresses("mx.example", BOTH);
        let (sent_ipv4, sent_ipv6) = both_sent(&mut scene);
        for (sent, is_secure, found) in
            [(sent_ipv4, ipv4, a_record("mx.example.", 1)), (sent_ipv6, ipv6, aaaa_record("mx.example.", 1))]
        {
            let records = is_secure.map(|_| found).into_iter().collect();
            scene.reply_authentic(&sent, records, is_secure.unwrap_or(true));
        }
        assert_eq!(security(scene.whole_answer()), expected, "{ipv4:?} {ipv6:?}");
    }
}

#[test]
fn what_was_found_before_a_server_is_believed_is_asked_again() {
    let mut scene = believing(&[false]);
    scene.mx("example.org");
    let sent = scene.one_sent();
    scene.reply_authentic(&sent, vec![mx_record("example.org.", 1, "mx.example.")], true);
    scene.whole_answer();
    // Another question is under way, after the first message of its chain.
    scene.addresses("mx.example", IPV4);
    let sent = scene.one_sent();
    scene.reply_authentic(&sent, vec![alias("mx.example.", "host.example.")], true);
    scene.one_sent();
    let mut settings = scene.resolver.settings.clone();
    settings.servers = vec![NameServer { is_believed: true, ..settings.servers[0] }];
    scene.resolver.reconfigure(scene.now, settings);
    let [sent, about_server] = &*scene.sent() else { panic!() };
    assert_eq!(sent.message().queries[0].name(), &name("mx.example."), "from the beginning");
    scene.reply_authentic(about_server, vec![ns_record(".")], true);
    scene.reply_authentic(sent, vec![a_record("mx.example.", 1)], true);
    assert_eq!(security(scene.whole_answer()), Security::Secure);
    scene.mx("example.org");
    let sent = scene.one_sent();
    scene.reply_authentic(&sent, vec![mx_record("example.org.", 1, "mx.example.")], true);
    assert_eq!(security(scene.whole_answer()), Security::Secure);
}

#[test]
fn tlsa_records_are_given_as_they_are_and_can_be_forgotten() {
    let mut scene = believing(&[true]);
    scene.tlsa("mx.example");
    let sent = scene.one_sent();
    let question = &sent.message().queries[0];
    assert_eq!((question.name(), question.query_type()), (&name("_25._tcp.mx.example."), RecordType::TLSA));
    let records = vec![
        alias("_25._tcp.mx.example.", "certificates.example."),
        tlsa_record("certificates.example.", &[7; 32]),
        tlsa_record("certificates.example.", &[]),
        tlsa_record("elsewhere.example.", &[9; 32]),
    ];
    scene.reply_authentic(&sent, records, true);
    let expected =
        |data: &[u8]| TlsaRecord { usage: 3, selector: 1, matching: 1, data: Bytes::copy_from_slice(data) };
    let canonical = Canonical::Other(Domain::parse("certificates.example").unwrap());
    let value = vec![expected(&[7; 32]), expected(&[])];
    assert_eq!(
        scene.whole_answer(),
        Answer::Tlsa(Ok(Resolved { value, security: Security::Secure, canonical }))
    );
    scene.tlsa("mx.example");
    assert_eq!(security(scene.whole_answer()), Security::Secure, "from the cache");
    scene.resolver.forget_tlsa(&Domain::parse("mx.example").unwrap(), 25);
    scene.tlsa("mx.example");
    let sent = scene.one_sent();
    // A record that ends before its matching type.
    let octets = raw_answer(&sent, 1, &[0xc0, 12, 0, 52, 0, 1, 0, 0, 0, 60, 0, 2, 3, 1]);
    scene.resolver.handle_datagram(scene.now, sent.query, sent.to, &octets);
    let Answer::Tlsa(Err(LookupError::Temporary(failure))) = scene.whole_answer() else { panic!() };
    let expected = "looking up the TLSA records of _25._tcp.mx.example failed: name server 192.0.2.1:53 sent a malformed answer";
    assert_eq!(failure.to_string(), expected);
}

#[test]
fn proofs_are_asked_for_again_after_an_hour() {
    let mut scene = believing(&[true]);
    scene.tlsa("mx.example");
    let sent = scene.one_sent();
    let mut found = tlsa_record("_25._tcp.mx.example.", &[7; 32]);
    found.ttl = 86_400;
    scene.reply_authentic(&sent, vec![found], true);
    scene.whole_answer();
    scene.pass(Duration::from_secs(3599));
    scene.tlsa("mx.example");
    scene.whole_answer();
    scene.pass(Duration::from_secs(1));
    scene.tlsa("mx.example");
    scene.one_sent();
}

#[test]
fn a_name_without_records_of_an_optional_kind_has_none_whether_it_exists_or_not() {
    for code in [ResponseCode::NoError, ResponseCode::NXDomain] {
        let mut scene = believing(&[true]);
        scene.tlsa("mx.example");
        let sent = scene.one_sent();
        scene.reply_with_code(&sent, code);
        assert_eq!(scene.whole_answer(), Answer::Tlsa(Ok(Resolved::insecure(vec![]))));
        scene.resolver.lookup_alias(scene.now, &Domain::parse("mx.example").unwrap(), Prospect::Fresh);
        let sent = scene.one_sent();
        scene.reply_with_code(&sent, code);
        assert_eq!(scene.whole_answer(), Answer::Alias(Ok(Resolved::insecure(false))));
    }
    // With `_25._tcp.` in front, the name were longer than a name can be.
    let mut scene = believing(&[true]);
    scene.tlsa(&[["a"; 63].concat(), ["b"; 63].concat(), ["c"; 63].concat(), ["d"; 60].concat()].join("."));
    assert_eq!(scene.whole_answer(), Answer::Tlsa(Ok(Resolved::insecure(vec![]))));
    for code in [ResponseCode::ServFail, ResponseCode::Refused] {
        let mut scene = believing(&[true]);
        scene.tlsa("mx.example");
        let sent = scene.one_sent();
        scene.reply_with_code(&sent, code);
        let answer = scene.whole_answer();
        assert!(matches!(answer, Answer::Tlsa(Err(LookupError::Temporary(_)))), "{answer:?}");
    }
}

#[test]
fn an_alias_is_found_and_not_followed() {
    let mut scene = believing(&[true]);
    scene.resolver.lookup_alias(scene.now, &Domain::parse("mx.example").unwrap(), Prospect::Fresh);
    let sent = scene.one_sent();
    assert_eq!(sent.message().queries[0].query_type(), RecordType::CNAME);
    scene.reply_authentic(&sent, vec![alias("mx.example.", "host.example.")], true);
    let expected = Resolved { value: true, security: Security::Secure, canonical: Canonical::Itself };
    assert_eq!(scene.whole_answer(), Answer::Alias(Ok(expected)));
}

#[test]
fn the_strings_of_a_text_are_joined_and_all_texts_together_are_bounded() {
    let text = |strings: &[&str]| {
        let strings = strings.iter().map(ToString::to_string).collect();
        record("_mta-sts.example.org.", 300, RData::TXT(TXT::new(strings)))
    };
    let mut scene = believing(&[true]);
    scene.resolver.lookup_texts(
        scene.now,
        "_mta-sts",
        &Domain::parse("example.org").unwrap(),
        Prospect::Fresh,
    );
    let sent = scene.one_sent();
    scene.reply_authentic(&sent, vec![text(&["v=STSv1; ", "id=1"]), text(&[""])], false);
    let Answer::Texts(Ok(found)) = scene.whole_answer() else { panic!() };
    assert_eq!(found.value, [b"v=STSv1; id=1".as_slice().into(), b"".as_slice().into()]);
}

#[test]
fn each_server_that_is_believed_is_asked_whether_it_validates() {
    let mut scene = believing(&[true, false, true]);
    scene.resolver.check_validation(scene.now);
    let sent = scene.sent();
    assert_eq!(sent.iter().map(|sent| sent.to).collect::<Vec<_>>(), [server(1), server(3)]);
    assert!(sent.iter().all(|sent| sent.message().queries[0].name().is_root()));
    scene.reply_authentic(&sent[0], vec![ns_record(".")], true);
    scene.reply_authentic(&sent[1], vec![ns_record(".")], false);
    let warnings: Vec<String> = scene
        .outputs()
        .into_iter()
        .filter_map(|output| if let ResolverOutput::Warning(text) = output { Some(text) } else { None })
        .collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("name server 192.0.2.3:53 does not validate by DNSSEC"), "{warnings:?}");
    // It is not the word of another server.
    scene.resolver.check_validation(scene.now);
    let sent = scene.sent();
    scene.reply_with_code(&sent[0], ResponseCode::ServFail);
    scene.reply_authentic(&sent[1], vec![ns_record(".")], true);
    let outputs = scene.outputs();
    let is_quiet = |output: &ResolverOutput| matches!(output, ResolverOutput::CloseDatagram(_));
    assert!(outputs.iter().all(is_quiet), "{outputs:?}");
    scene.assert_clean();
}
