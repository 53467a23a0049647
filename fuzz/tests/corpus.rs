//! Every file of the corpora passes its target, on any compiler.

use std::fs;
use std::path::{Path, PathBuf};

use cmail_delivery_fuzz::{Check, TARGETS};

/// Largest corpora that are kept, all together: what the fuzzer finds beyond that stays where it was found.
const FILES_LIMIT: usize = 200;
const OCTETS_LIMIT: u64 = 300 * 1024;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn files(target: &str) -> Vec<PathBuf> {
    let folder = corpus().join(target);
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("the folder is readable").path())
        .collect();
    files.sort();
    files
}

fn replay(target: &str, check: Check) {
    let files = files(target);
    assert!(!files.is_empty(), "the corpus of {target} is empty");
    for file in files {
        let octets = fs::read(&file).expect("the file is readable");
        if std::panic::catch_unwind(|| check(&octets)).is_err() {
            panic!("{} fails {target}: see above", file.display());
        }
    }
}

#[test]
fn every_corpus_belongs_to_a_target_and_all_of_them_are_small() {
    let mut found: Vec<String> = fs::read_dir(corpus())
        .expect("the corpora are readable")
        .map(|entry| entry.expect("the folder is readable").file_name().to_string_lossy().into_owned())
        .collect();
    found.sort();
    assert_eq!(found, TARGETS.map(|(name, _)| name));
    let files: Vec<PathBuf> = TARGETS.iter().flat_map(|(name, _)| files(name)).collect();
    assert!(files.len() <= FILES_LIMIT, "{} files", files.len());
    let octets: u64 = files.iter().map(|file| file.metadata().expect("the file is readable").len()).sum();
    assert!(octets <= OCTETS_LIMIT, "{octets} octets");
}

#[test]
fn the_corpus_of_addresses_passes() {
    replay("addresses", cmail_delivery_fuzz::addresses::check);
}

#[test]
fn the_corpus_of_bounces_passes() {
    replay("bounces", cmail_delivery_fuzz::bounces::check);
}

#[test]
fn the_corpus_of_configuration_passes() {
    replay("configuration", cmail_delivery_fuzz::configuration::check);
}

#[test]
fn the_corpus_of_dispatcher_passes() {
    replay("dispatcher", cmail_delivery_fuzz::dispatcher::check);
}

#[test]
fn the_corpus_of_dkim_passes() {
    replay("dkim", cmail_delivery_fuzz::dkim::check);
}

#[test]
fn the_corpus_of_dns_datagrams_passes() {
    replay("dns_datagrams", cmail_delivery_fuzz::dns_datagrams::check);
}

#[test]
fn the_corpus_of_dns_streams_passes() {
    replay("dns_streams", cmail_delivery_fuzz::dns_streams::check);
}

#[test]
fn the_corpus_of_failure_texts_passes() {
    replay("failure_texts", cmail_delivery_fuzz::failure_texts::check);
}

#[test]
fn the_corpus_of_mail_data_passes() {
    replay("mail_data", cmail_delivery_fuzz::mail_data::check);
}

#[test]
fn the_corpus_of_certificates_passes() {
    replay("certificates", cmail_delivery_fuzz::certificates::check);
}

#[test]
fn the_corpus_of_sts_policies_passes() {
    replay("sts_policies", cmail_delivery_fuzz::sts_policies::check);
}

#[test]
fn the_corpus_of_sts_records_passes() {
    replay("sts_records", cmail_delivery_fuzz::sts_records::check);
}

#[test]
fn the_corpus_of_tlsa_records_passes() {
    replay("tlsa_records", cmail_delivery_fuzz::tlsa_records::check);
}

#[test]
fn the_corpus_of_remotes_passes() {
    replay("remotes", cmail_delivery_fuzz::remotes::check);
}

#[test]
fn the_corpus_of_replies_passes() {
    replay("replies", cmail_delivery_fuzz::replies::check);
}

#[test]
fn the_corpus_of_session_passes() {
    replay("session", cmail_delivery_fuzz::session::check);
}
