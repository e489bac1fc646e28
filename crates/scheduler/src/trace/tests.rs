use super::*;

const PODS: &str =
    "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,creation_time,deletion_time\n";
const NODES: &str = "sn,cpu_milli,memory_mib,gpu,model\n";

#[test]
fn a_pod_says_what_it_needs_and_where_it_may_be() {
    let text = format!("{PODS}a,4000,8192,1,500,V100M16|V100M32,10,20\nb,1000,1,0,0,,,\n");
    let pods = pods(&text).unwrap();
    assert_eq!(pods[0].request.gpu_milli, 500);
    assert_eq!(pods[0].request.models.len(), 2);
    assert_eq!(
        (pods[0].created_s, pods[0].deleted_s),
        (Some(10.0), Some(20.0))
    );
    assert_eq!(pods[1].request.gpus, 0);
    assert_eq!(pods[1].created_s, None);
}

#[test]
fn columns_come_in_any_order_and_quotes_and_windows_line_ends_are_read() {
    let text =
        "\u{feff}model,gpu,memory_mib,cpu_milli,sn,rack\r\n\"A, B\",2,1024,4000,n1,r\r\n\r\n";
    let nodes = nodes(text).unwrap();
    assert_eq!(nodes.len(), 1);
    assert_eq!((nodes[0].model.as_str(), nodes[0].gpus), ("A, B", 2));
}

#[test]
fn what_is_wrong_is_said_with_its_row_and_column() {
    let pod = |row: &str| format!("{PODS}ok,1,1,0,0,,,\n{row}\n");
    let node = |row: &str| format!("{NODES}{row}\n");
    for (text, row, column) in [
        (pod("a,-4,1,0,0,,,"), 3, "cpu_milli"),
        (pod("a,NaN,1,0,0,,,"), 3, "cpu_milli"),
        (pod("a,1,inf,0,0,,,"), 3, "memory_mib"),
        (pod("a,1,1,1000000000,0,,,"), 3, "num_gpu"),
        (pod("a,1,1,1,1001,,,"), 3, "gpu_milli"),
        (pod("a,1,1,1,0,,,"), 3, "gpu_milli"),
        (pod("a,1,1,2,500,,,"), 3, "gpu_milli"),
        (pod("a,1,1"), 3, "num_gpu"),
        (pod(",1,1,0,0,,,"), 3, "name"),
        (pod("a,1,1,0,0,,NaN,"), 3, "creation_time"),
        (pod("a,1,1,0,0,,20,10"), 3, "deletion_time"),
        (pod("a,\"1,1,0,0"), 3, "cpu_milli"),
        (pod("a,1\"0\",1,0,0,,,"), 3, "cpu_milli"),
        (pod("a,\"1\"0,1,0,0,,,"), 3, "cpu_milli"),
        (pod("a\"b\",1,1,0,0,,,"), 3, "name"),
        (pod("a,1,1,0,0,,,,9"), 3, "deletion_time"),
        (pod("a,1,99999999999999999999999,0,0,,,"), 3, "memory_mib"),
        (pod("a,1,1,0,0,,1e300,"), 3, "creation_time"),
        (pod("a,1,1,0,0,,1e400,"), 3, "creation_time"),
        (PODS.to_owned(), 2, "name"),
        (" \r\n\r\n".to_owned(), 1, "name"),
        (
            "name,cpu_milli,num_gpu,gpu_milli\na,1,1,1\n".to_owned(),
            1,
            "memory_mib",
        ),
        ("name,name\n".to_owned(), 1, "name"),
        (String::new(), 1, "name"),
    ] {
        match pods(&text) {
            Err(Error::Csv {
                row: said,
                column: named,
                ..
            }) => assert_eq!((said, named.as_str()), (row, column), "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }
    for (text, column) in [
        (node("n,99999999999,1,1,A10"), "cpu_milli"),
        (node("n,1,1,17,A10"), "gpu"),
        (node("n,1,1,1,A10\nn,1,1,1,A10"), "sn"),
        (NODES.to_owned(), "sn"),
        ("sn,cpu_milli,memory_mib,gpu\nn,1,1,1\n".to_owned(), "model"),
    ] {
        let error = nodes(&text).unwrap_err();
        assert!(
            matches!(&error, Error::Csv { column: named, .. } if named == column),
            "{error}"
        );
    }
}

#[test]
fn nothing_that_was_found_by_fuzzing_panics() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/trace_csv");
    for entry in std::fs::read_dir(folder).expect("the corpus is checked in") {
        fuzz(&std::fs::read(entry.unwrap().path()).unwrap());
    }
}
