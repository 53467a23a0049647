use super::*;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;

const APPEND: OFlag = OFlag::O_WRONLY.union(OFlag::O_APPEND);

fn append(path: &Path, text: &str) -> Result<bool, PlaceError> {
    let (file, is_new) = Place::find(path)?.open(APPEND, Mode::from_bits_truncate(0o600))?;
    File::from(file).write_all(text.as_bytes()).unwrap();
    Ok(is_new)
}

/// A directory of another user than root; `None` if the tests do not run as root, who alone can create one.
fn foreign_directory() -> Option<tempfile::TempDir> {
    let directory = tempfile::tempdir().unwrap();
    let owner = std::os::unix::fs::chown(directory.path(), Some(65_534), None);
    owner.is_ok().then_some(directory)
}

#[test]
fn files_are_created_and_appended_to() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("./log");
    assert!(append(&path, "a").unwrap());
    assert!(!append(&path, "b").unwrap());
    assert_eq!(fs::read_to_string(path).unwrap(), "ab");
    assert!(matches!(append(directory.path(), ""), Err(PlaceError::System(_))));
    assert!(matches!(append(&directory.path().join("no/log"), ""), Err(PlaceError::System(_))));
    assert!(append(Path::new("/dev/null"), "x").is_ok());
}

#[test]
fn links_of_root_are_followed_and_those_of_others_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir(at("data")).unwrap();
    symlink("data/../data/file", at("relative")).unwrap();
    symlink(at("relative"), at("absolute")).unwrap();
    symlink("loop", at("loop")).unwrap();
    let found = append(&at("absolute"), "a");
    if !Uid::effective().is_root() {
        return assert!(matches!(found, Err(PlaceError::ForeignLink { .. })));
    }
    assert!(found.unwrap());
    assert_eq!(fs::read_to_string(at("data/file")).unwrap(), "a");
    assert!(matches!(append(&at("loop"), ""), Err(PlaceError::System(_))));
    std::os::unix::fs::lchown(at("relative"), Some(65_534), None).unwrap();
    let error = append(&at("absolute"), "a").unwrap_err().to_string();
    let expected = "relative is a symbolic link of user 65534, which root does not follow";
    assert!(error.ends_with(expected), "{error}");
}

#[test]
fn a_second_name_is_trusted_only_where_root_alone_makes_names() {
    let Some(directory) = foreign_directory() else { return };
    let at = |name: &str| directory.path().join(name);
    fs::write(at("secret"), "").unwrap();
    fs::hard_link(at("secret"), at("log")).unwrap();
    assert!(matches!(append(&at("log"), "x"), Err(PlaceError::SecondName)));
    assert!(matches!(Place::find(&at("log")).unwrap().check(), Err(PlaceError::SecondName)));
    assert_eq!(fs::read_to_string(at("secret")).unwrap(), "");
    std::os::unix::fs::chown(directory.path(), Some(0), None).unwrap();
    assert!(append(&at("log"), "x").is_ok());
}

#[test]
fn an_open_file_behind_a_link_of_proc_is_reached() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(file.as_file());
    let path = PathBuf::from(format!("/proc/self/fd/{descriptor}"));
    match append(&path, "x") {
        // The link belongs to the user who runs the test.
        Err(PlaceError::ForeignLink { .. }) => assert!(!Uid::effective().is_root()),
        appended => {
            assert!(!appended.unwrap());
            assert_eq!(fs::read_to_string(file.path()).unwrap(), "x");
        }
    }
}

#[test]
fn a_check_creates_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    Place::find(&path).unwrap().check().unwrap();
    assert!(!path.exists());
    assert!(Place::find(directory.path()).unwrap().check().is_err());
}
