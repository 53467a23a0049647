//! The log file that the configuration names, and what prevents it.

use super::*;

#[test]
fn a_log_file_that_cannot_be_opened_is_an_error() {
    let scene = Scene::with_database("logfile missing/log\n");
    for words in [["test.conf", "nodetach"], ["test.conf", "nodrop"]] {
        assert!(only_error(&scene.run(words)).contains("missing/log"), "{words:?}");
    }
}

#[test]
fn a_second_process_leaves_the_log_of_the_first_alone() {
    let scene = Scene::with_database("logfile log\npidfile pid\nverbosity 1\nratelimit 5\n");
    assert_succeeds(&scene.command(["test.conf"]).output().unwrap());
    let daemon = Background::of(&scene, "pid");
    let before = crate::support::wait_for_file(&scene.path("log"), |text| text.contains(" works on "));
    assert!(before.contains("ratelimit"), "{before}");
    assert_eq!(scene.run(["test.conf", "genbounces"]).status.code(), Some(1));
    assert_eq!(scene.text("log"), before);
    daemon.terminate();
}

#[test]
fn only_verbosity_decides_what_is_logged() {
    let scene = Scene::with_database("logfile log\nverbosity 0\n");
    assert_succeeds(&scene.run(["test.conf", "genbounces"]));
    assert_eq!(scene.text("log"), "");
}

#[test]
fn a_full_disk_under_the_log_stops_nothing() {
    let scene = Scene::with_database("logfile /dev/full\nverbosity 4\n");
    assert_succeeds(&scene.run(["test.conf", "genbounces"]));
}

#[test]
fn a_log_file_that_was_moved_away_is_opened_anew_on_sighup() {
    let scene = Scene::with_database("logfile log\npidfile pid\nverbosity 1\n");
    assert_succeeds(&scene.run(["test.conf"]));
    let daemon = Background::of(&scene, "pid");
    fs::rename(scene.path("log"), scene.path("log.1")).unwrap();
    signal::kill(daemon.pid, Signal::SIGHUP).unwrap();
    // SIGHUP is read before SIGTERM even if both come at once: its number is lower.
    daemon.terminate();
    assert!(scene.text("log.1").contains(" works on "));
    assert!(scene.path("log").exists());
}

#[test]
fn a_log_file_that_only_root_could_reopen_goes_on_with_a_warning() {
    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    let logs = tempfile::tempdir().unwrap();
    let log = logs.path().join("log");
    let scene = Scene::new(&format!("user nobody\nlogfile {}\npidfile pid\n", log.display()));
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    std::os::unix::fs::chown(&scene.directory, Some(nobody.uid.as_raw()), None).unwrap();
    assert_succeeds(&scene.run(["test.conf", "initdb"]));
    assert_succeeds(&scene.run(["test.conf"]));
    let daemon = Background::of(&scene, "pid");
    // The file itself is the user's, but a new one cannot be created in this directory.
    let moved = logs.path().join("log.1");
    fs::rename(&log, &moved).unwrap();
    signal::kill(daemon.pid, Signal::SIGHUP).unwrap();
    daemon.terminate();
    let text = fs::read_to_string(&moved).unwrap();
    assert!(text.contains("cannot be opened: Permission denied"), "{text:?}");
}
