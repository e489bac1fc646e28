//! The real path through the loader: a library in C with NVML's names, compiled on the spot.

use std::path::PathBuf;
use std::process::Command;

use super::*;

/// Two devices: one with MIG on and one of its places taken, one that tells as little as it may.
const FAKE: &str = r#"
#include <string.h>
typedef unsigned int u; typedef unsigned long long ull;
static int parts[2] = {0, 1}; static int mig = 7;
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int e) { return "fake"; }
int nvmlSystemGetDriverVersion(char *v, u n) { strncpy(v, "550.54.15", n); return 0; }
int nvmlSystemGetCudaDriverVersion_v2(int *v) { *v = 12040; return 0; }
int nvmlDeviceGetCount_v2(u *n) { *n = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(u i, void **d) { *d = &parts[i]; return 0; }
int nvmlDeviceGetUUID(void *d, char *s, u n) {
    strncpy(s, d == &mig ? "MIG-1" : d == &parts[0] ? "GPU-0" : "GPU-1", n); return 0; }
int nvmlDeviceGetName(void *d, char *s, u n) { strncpy(s, d == &mig ? "A100 MIG 1g.5gb" : "A100", n); return 0; }
struct memory { u version; ull total, reserved, free, used; };
int nvmlDeviceGetMemoryInfo_v2(void *d, struct memory *m) {
    m->total = d == &mig ? 5 : 40; m->reserved = 1; m->free = m->total - 2; m->used = 1; return 0; }
struct rates { u gpu, memory; };
int nvmlDeviceGetUtilizationRates(void *d, struct rates *r) { r->gpu = 50; r->memory = 1; return d == &parts[1] ? 3 : 0; }
int nvmlDeviceGetPowerUsage(void *d, u *p) { *p = 61500; return 0; }
int nvmlDeviceGetMigMode(void *d, u *now, u *next) { *now = *next = 1; return d == &parts[1] ? 3 : 0; }
int nvmlDeviceGetMaxMigDeviceCount(void *d, u *n) { *n = 7; return 0; }
int nvmlDeviceGetMigDeviceHandleByIndex(void *d, u i, void **m) { *m = &mig; return i == 2 ? 0 : 6; }
"#;

fn fake() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let (source, library) = (
        folder.path().join("nvml.c"),
        folder.path().join("libnvml.so"),
    );
    std::fs::write(&source, FAKE).expect("writes");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .status()
        .expect("the C compiler that links Rust programs, too");
    assert!(built.success());
    (folder, library)
}

#[test]
fn devices_and_partitions_are_read_and_what_is_not_told_is_absent() {
    let (_folder, library) = fake();
    let reading = Nvml::find(Some(library.as_os_str()))
        .expect("loads")
        .read()
        .expect("answers");
    assert_eq!(
        (reading.driver.as_str(), reading.cuda),
        ("550.54.15", Some((12, 4)))
    );
    let [divided, plain] = reading.gpus.as_slice() else {
        panic!("{reading:?}");
    };
    assert_eq!((divided.uuid.as_str(), divided.memory.total), ("GPU-0", 40));
    assert_eq!(
        (divided.utilization, divided.power_watts),
        (Some(0.5), Some(61.5))
    );
    assert_eq!((plain.utilization, plain.temperature_celsius), (None, None));
    let partition = Partition {
        uuid: "MIG-1".to_owned(),
        name: "A100 MIG 1g.5gb".to_owned(),
        memory: Memory {
            total: 5,
            used: 1,
            free: 3,
        },
    };
    assert_eq!(divided.partitions, Some(vec![partition]));
    assert_eq!(plain.partitions, None);
    assert_eq!(reading.places().collect::<Vec<_>>(), ["MIG-1", "GPU-1"]);
}

#[test]
fn a_machine_without_the_library_is_told_from_one_whose_driver_is_silent() {
    let error = Nvml::find(Some(OsStr::new("/nowhere/libnvidia-ml.so.1"))).expect_err("absent");
    assert!(matches!(error, Error::Missing(_)), "{error}");
}
