//! Writes the CRD manifests of the chart, and the reference page of the custom resources. With `--check`, only reports whether the existing files are out of date.

use std::path::Path;
use std::process::ExitCode;

use bobbin_crds::manifest;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => write(),
        ["--check"] => check(),
        _ => Err("the argument is unknown: run crdgen without arguments to write the manifests, or with --check to compare the manifests with the types".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("{sentence}");
            ExitCode::FAILURE
        }
    }
}

type Files = Vec<(std::path::PathBuf, String)>;

fn files() -> Result<Files, Box<dyn std::error::Error>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/bobbin/templates/crds");
    let definitions = manifest::all()?;
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/crds.md");
    let mut files = Files::from([(page, manifest::reference::page(&definitions)?)]);
    for definition in &definitions {
        let (name, text) = manifest::template(definition)?;
        files.push((directory.join(name), text));
    }
    Ok(files)
}

fn write() -> Result<(), Box<dyn std::error::Error>> {
    for (path, text) in files()? {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        std::fs::write(&path, text).map_err(|error| format!("can't write the manifest {}: {error}", path.display()))?;
    }
    Ok(())
}

fn check() -> Result<(), Box<dyn std::error::Error>> {
    for (path, text) in files()? {
        if std::fs::read_to_string(&path).unwrap_or_default() != text {
            return Err(format!(
                "{} is out of date: run `cargo run -p bobbin-crds --bin crdgen` and commit the result",
                path.display()
            )
            .into());
        }
    }
    Ok(())
}
