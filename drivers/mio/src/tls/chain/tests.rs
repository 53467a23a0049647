use rcgen::{BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, Issuer, KeyPair};

use super::*;
use crate::testing;

/// A certificate that one of these names has issued for the other, as far as the name tells.
fn issued(subject: &str, issuer: &str) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, subject);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let mut above = CertificateParams::default();
    above.distinguished_name.push(DnType::CommonName, issuer);
    let issuer = Issuer::new(above, KeyPair::generate().unwrap());
    params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap().der().clone()
}

fn leaf(issuer: &str) -> CertificateDer<'static> {
    let mut above = CertificateParams::default();
    above.distinguished_name.push(DnType::CommonName, issuer);
    let issuer = Issuer::new(above, KeyPair::generate().unwrap());
    let params = testing::params(&["mx.example.org"]);
    params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap().der().clone()
}

/// Returns the places of those of the certificates that are looked at besides the first.
fn places(shown: &[CertificateDer<'static>]) -> Vec<usize> {
    let found = Chain::of(shown).unwrap();
    let place = |issuer: &Certificate<'_>| shown.iter().position(|other| **other == *issuer.der).unwrap();
    found.issuers.iter().map(place).collect()
}

#[test]
fn nothing_shown_is_no_chain() {
    assert!(Chain::of(&[]).is_none());
    let unreadable = [CertificateDer::from(vec![0; 9]), issued("b", "c")];
    let found = Chain::of(&unreadable).unwrap();
    assert!(found.leaf.is_none() && found.issuers.is_empty());
    assert_eq!(found.own, unreadable[0]);
}

#[test]
fn those_are_found_that_the_names_lead_to_in_whatever_order_they_are_shown() {
    let [a, b, c] = [issued("a", "b"), issued("b", "c"), issued("c", "c")];
    let strangers = (0..100).map(|number| issued(&format!("stranger {number}"), "a"));
    let mut shown = vec![leaf("a")];
    shown.extend([c, b]);
    shown.extend(strangers);
    shown.push(a);
    assert_eq!(places(&shown), [103, 2, 1]);
}

#[test]
fn of_one_name_few_are_looked_at_each_once() {
    let mut shown = vec![leaf("a"), issued("a", "b")];
    shown.push(shown[1].clone());
    shown.extend((0..NAMESAKES_LIMIT).map(|_| issued("a", "c")));
    shown.extend([issued("c", "d"), issued("b", "d")]);
    assert_eq!(places(&shown), [1, 3, 6, 5]);
}

#[test]
fn an_authority_may_vouch_for_its_own_next_key() {
    assert_eq!(places(&[leaf("a"), issued("a", "a")]), [1]);
}

#[test]
fn no_circles_are_looked_at_and_no_more_than_permitted() {
    let names = ["a", "b", "c", "d", "e"];
    let all = names.iter().rev().flat_map(|subject| names.iter().rev().map(|issuer| issued(subject, issuer)));
    let shown: Vec<_> = [leaf("a")].into_iter().chain(all).collect();
    let found = Chain::of(&shown).unwrap();
    assert_eq!(found.intermediates().len(), ISSUERS_LIMIT);
    // Each of those names that its bearers lead to comes later.
    let mut names: Vec<&[u8]> = found.issuers.iter().map(|issuer| issuer.subject).collect();
    names.dedup();
    for issuer in &found.issuers {
        let at = |name: &[u8]| names.iter().position(|known| *known == name);
        assert!(at(issuer.issuer).is_none_or(|above| Some(above) >= at(issuer.subject)), "{names:?}");
    }
}

#[test]
fn large_certificates_are_left_out_and_others_are_looked_at() {
    let mut large = CertificateParams::default();
    large.distinguished_name.push(DnType::CommonName, "a");
    let extension = CustomExtension::from_oid_content(&[1, 2, 3], vec![4; ISSUERS_LIMIT_OCTETS]);
    large.custom_extensions.push(extension);
    let large = large.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone();
    assert_eq!(places(&[leaf("a"), large.clone(), issued("a", "b"), issued("b", "c")]), [2, 3]);
    assert!(places(&[leaf("a"), large]).is_empty());
}
