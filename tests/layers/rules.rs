//! What the layers of a crate forbid.

use std::collections::HashMap;
use std::fmt;
use std::path::Path as FilePath;

use crate::source::{InherentImpl, Path, Source, module_of, read};

/// One crate's modules, by layer.
pub(crate) struct Crate {
    /// Where its sources lie in the repository.
    pub(crate) folder: &'static str,
    /// The file of the root module.
    pub(crate) root: &'static str,
    /// From the bottom to the top.
    pub(crate) layers: &'static [&'static [&'static str]],
}

#[derive(Debug)]
pub(crate) struct Violation {
    pub(crate) file: String,
    /// 0 if it is the file as a whole.
    pub(crate) line: usize,
    /// The module that must not be referred to, or `impl` and the type's name.
    pub(crate) what: String,
    pub(crate) reason: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{}:{}: {} ({})",
            self.file, self.line, self.reason, self.what
        )
    }
}

/// What the root module itself defines.
const ROOT_ITEMS: &str = "lib";

struct File {
    /// With the folder of the crate.
    name: String,
    /// Nothing for the root.
    layer: Option<String>,
    source: Source,
}

impl Crate {
    /// All source files: their paths from the crate's folder, and their text.
    pub(crate) fn read_files(&self) -> Vec<(String, String)> {
        let folder = FilePath::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(self.folder);
        let mut files = Vec::new();
        let mut folders = vec![folder.clone()];
        while let Some(next) = folders.pop() {
            for entry in
                std::fs::read_dir(&next).unwrap_or_else(|error| panic!("{}: {error}", next.display()))
            {
                let path = entry.expect("a folder can be listed").path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let name = path
                        .strip_prefix(&folder)
                        .expect("it lies in the folder")
                        .to_str()
                        .expect("UTF-8");
                    // The root of a program that stands beside a library is a crate of its own.
                    if name != "main.rs" || self.root == "main.rs" {
                        let text = std::fs::read_to_string(&path).expect("a source file can be read");
                        files.push((name.to_owned(), text));
                    }
                }
            }
        }
        files.sort();
        files
    }

    pub(crate) fn check(&self, files: &[(String, String)]) -> Vec<Violation> {
        let files: Vec<File> = files
            .iter()
            .map(|(name, text)| {
                let module = module_of(name);
                let source = read(&module, text);
                File {
                    name: format!("{}/{name}", self.folder),
                    layer: module.first().cloned(),
                    source,
                }
            })
            .collect();
        let mut in_root: HashMap<&str, Option<String>> = HashMap::new();
        for file in &files {
            in_root.extend(
                file.source
                    .macros
                    .iter()
                    .map(|name| (name.as_str(), file.layer.clone())),
            );
            if file.layer.is_none() {
                let layer = |path: &Path| path.first().filter(|first| self.height(first).is_some()).cloned();
                in_root.extend(
                    file.source
                        .imports
                        .iter()
                        .map(|(name, path)| (name.as_str(), layer(path))),
                );
            }
        }
        let mut types: HashMap<&str, Vec<&str>> = HashMap::new();
        for file in &files {
            for name in &file.source.types {
                types
                    .entry(name)
                    .or_default()
                    .push(file.layer.as_deref().unwrap_or(ROOT_ITEMS));
            }
        }
        let mut violations = self.check_list(&files);
        for file in &files {
            self.check_references(file, &in_root, &mut violations);
            check_impls(file, &types, &mut violations);
        }
        violations
    }

    /// The position from the bottom.
    fn height(&self, layer: &str) -> Option<usize> {
        self.layers.iter().position(|modules| modules.contains(&layer))
    }

    /// Each module is in the list, and each name in the list is a module.
    fn check_list(&self, files: &[File]) -> Vec<Violation> {
        let present: Vec<&str> = files
            .iter()
            .map(|file| file.layer.as_deref().unwrap_or(ROOT_ITEMS))
            .collect();
        let missing = files.iter().filter_map(|file| {
            let layer = file.layer.as_deref()?;
            let reason = format!("`{layer}` is in no layer: add it to the list");
            self.height(layer)
                .is_none()
                .then(|| (file.name.clone(), layer, reason))
        });
        let superfluous = self
            .layers
            .iter()
            .copied()
            .flatten()
            .filter(|layer| !present.contains(layer))
            .map(|layer| {
                (
                    format!("{}/{}", self.folder, self.root),
                    *layer,
                    format!("there is no module `{layer}`"),
                )
            });
        missing
            .chain(superfluous)
            .map(|(file, what, reason)| Violation {
                file,
                line: 0,
                what: what.to_owned(),
                reason,
            })
            .collect()
    }

    fn check_references(
        &self,
        file: &File,
        in_root: &HashMap<&str, Option<String>>,
        violations: &mut Vec<Violation>,
    ) {
        let Some(own) = file.layer.as_deref() else { return };
        let Some(own_height) = self.height(own) else {
            return;
        };
        for reference in &file.source.references {
            let Some(target) = self.target(&reference.path, in_root) else {
                continue;
            };
            if target == own || self.height(&target).is_some_and(|height| height < own_height) {
                continue;
            }
            violations.push(Violation {
                file: file.name.clone(),
                line: reference.line,
                reason: format!("`{own}` must not refer to crate::{}", reference.path.join("::")),
                what: target,
            });
        }
    }

    /// The module below the root to which a path leads; nothing if it leads to another crate. `in_root` says it of
    /// names that the root module imports from elsewhere.
    fn target(&self, path: &Path, in_root: &HashMap<&str, Option<String>>) -> Option<String> {
        let first = path.first().map_or("*", String::as_str);
        if self.height(first).is_some() {
            return Some(first.to_owned());
        }
        in_root
            .get(first)
            .map_or_else(|| Some(ROOT_ITEMS.to_owned()), Clone::clone)
    }
}

fn check_impls(file: &File, types: &HashMap<&str, Vec<&str>>, violations: &mut Vec<Violation>) {
    let own = file.layer.as_deref().unwrap_or(ROOT_ITEMS);
    for block in &file.source.impls {
        // A type of another crate cannot have an `impl` block here: then the name is a macro's variable or an alias.
        let Some(layers) = types.get(block.type_name.as_str()) else {
            continue;
        };
        let named = type_layer(block, &file.source).filter(|layer| layers.contains(&layer.as_str()));
        let is_in_own_layer = named
            .as_ref()
            .map_or_else(|| layers.contains(&own), |layer| layer == own);
        if !is_in_own_layer {
            let layer = named.unwrap_or_else(|| layers.join("` or `"));
            violations.push(Violation {
                file: file.name.clone(),
                line: block.line,
                what: format!("impl {}", block.type_name),
                reason: format!(
                    "methods of {} belong to `{layer}`, where it is defined",
                    block.type_name
                ),
            });
        }
    }
}

/// Where a block's type is, according to the path in the block or to the file's imports.
fn type_layer(block: &InherentImpl, source: &Source) -> Option<String> {
    let imported = || {
        source
            .imports
            .iter()
            .find(|(name, _)| *name == block.type_name)
            .map(|(_, path)| path)
    };
    block.path.as_ref().or_else(imported)?.first().cloned()
}

#[cfg(test)]
mod planted {
    use super::*;

    const LAYERS: Crate = Crate {
        folder: "src",
        root: "lib.rs",
        layers: &[&["state"], &["lobby"], &["frontends", "maintenance"], &["server"]],
    };

    const ROOT: &str = "mod frontends; mod lobby; mod maintenance; mod server; mod state;
        pub use another_crate as games; pub use server::Server; pub use crate::state::Memory; pub fn version() {}";

    /// What is found in a crate whose file `name` contains `text`, as `file:line: what`.
    fn found(name: &str, text: &str) -> Vec<String> {
        let mut files: Vec<(String, String)> = [
            ("lib.rs", ROOT),
            ("frontends.rs", ""),
            ("lobby/mod.rs", "pub struct Lobby;"),
            ("maintenance.rs", ""),
            ("server.rs", "pub struct Server;"),
            ("state.rs", "pub struct Memory; impl Memory {}"),
        ]
        .map(|(name, text)| (name.to_owned(), text.to_owned()))
        .into();
        files.retain(|(present, _)| present != name);
        files.push((name.to_owned(), text.to_owned()));
        let violations = LAYERS.check(&files);
        violations
            .iter()
            .map(|one| format!("{}:{}: {}", one.file, one.line, one.what))
            .collect()
    }

    #[test]
    fn references_downwards_and_inside_a_layer_are_allowed() {
        let text = "use crate::state::Memory; use super::Lobby; use crate::games::Game; use std::{fmt, io};
            mod inner { use super::super::Lobby; }
            impl Chat { pub(super) fn f(&self) -> impl Fn() { self.x; super::super::state::f() } } struct Chat;
            impl fmt::Display for crate::state::Memory {}";
        assert_eq!(found("lobby/chat.rs", text), Vec::<String>::new());
    }

    #[test]
    fn a_reference_in_a_use_group_is_found() {
        let text = "use crate::{\n    state::Memory,\n    server::{\n        self, Server}};";
        assert_eq!(
            found("lobby/chat.rs", text),
            ["src/lobby/chat.rs:4: server", "src/lobby/chat.rs:4: server"]
        );
        assert_eq!(
            found("lobby/chat.rs", "use {std::io, crate::server as s};"),
            ["src/lobby/chat.rs:1: server"]
        );
    }

    #[test]
    fn a_path_in_code_is_found() {
        let text = "fn f() {\n    let x = crate::server::run::<u8>();\n}";
        assert_eq!(found("lobby/chat.rs", text), ["src/lobby/chat.rs:2: server"]);
        assert_eq!(
            found("lobby/chat.rs", "struct A(Vec<crate::server::B>);"),
            ["src/lobby/chat.rs:1: server"]
        );
        assert_eq!(
            found("lobby/chat.rs", "macro_rules! m { () => { $crate::server::B } }"),
            ["src/lobby/chat.rs:1: server"]
        );
        assert_eq!(
            found("lobby/chat.rs", "impl From<crate::server::B> for A {}"),
            ["src/lobby/chat.rs:1: server"]
        );
        assert_eq!(
            found("lobby/chat.rs", "#[serde(with = \"crate::server::b\")] struct A;"),
            ["src/lobby/chat.rs:1: server"]
        );
    }

    #[test]
    fn a_path_through_super_is_found() {
        assert_eq!(
            found("lobby/chat.rs", "use super::super::server::Server;"),
            ["src/lobby/chat.rs:1: server"]
        );
        assert_eq!(
            found(
                "lobby/chat/words.rs",
                "fn f() { super::super::super::server::g() }"
            ),
            ["src/lobby/chat/words.rs:1: server"]
        );
        assert_eq!(
            found("lobby/mod.rs", "pub struct Lobby; use self::super::server;"),
            ["src/lobby/mod.rs:1: server"]
        );
        assert_eq!(
            found(
                "lobby/chat.rs",
                "mod tests {\n mod deep {}\n use super::super::super::server::Server;\n}\nuse super::super::server;"
            ),
            ["src/lobby/chat.rs:3: server", "src/lobby/chat.rs:5: server"]
        );
    }

    #[test]
    fn modules_of_one_layer_do_not_refer_to_each_other() {
        assert_eq!(
            found("frontends.rs", "use crate::maintenance::sweep;"),
            ["src/frontends.rs:1: maintenance"]
        );
        assert_eq!(
            found("maintenance.rs", "use super::frontends;"),
            ["src/maintenance.rs:1: frontends"]
        );
    }

    #[test]
    fn a_reference_by_way_of_the_root_is_found() {
        assert_eq!(found("lobby/chat.rs", "use crate::Memory;"), Vec::<String>::new());
        let own_macro = "#[macro_export] macro_rules! up { () => {} } crate::up!();";
        assert_eq!(found("server.rs", own_macro), Vec::<String>::new());
        assert_eq!(
            found("lobby/chat.rs", "use crate::Server;"),
            ["src/lobby/chat.rs:1: server"]
        );
        assert_eq!(
            found("lobby/chat.rs", "use crate::*;"),
            ["src/lobby/chat.rs:1: lib"]
        );
        assert_eq!(
            found("lobby/chat.rs", "use super::super as root;"),
            ["src/lobby/chat.rs:1: lib"]
        );
        assert_eq!(
            found("lobby/chat.rs", "fn f() { crate::version() }"),
            ["src/lobby/chat.rs:1: lib"]
        );
    }

    #[test]
    fn methods_in_another_layer_than_their_type_are_found() {
        let what = ["src/lobby/chat.rs:2: impl Memory"];
        assert_eq!(
            found(
                "lobby/chat.rs",
                "use crate::state::Memory;\nimpl Memory { fn f() {} }"
            ),
            what
        );
        assert_eq!(found("lobby/chat.rs", "\nimpl crate::state::Memory {}"), what);
        assert_eq!(
            found(
                "lobby/chat.rs",
                "use crate::state::*;\nimpl<'a, F: Fn() -> u8> Memory<'a, F> where F: for<'b> Fn(&'b u8) {}"
            ),
            what
        );
        assert_eq!(
            found(
                "server.rs",
                "pub struct Server; use crate::lobby::Lobby;\n#[inline]\nimpl Lobby {}"
            ),
            ["src/server.rs:3: impl Lobby"]
        );
        assert_eq!(
            found("lib.rs", &format!("{ROOT} impl Server {{}}")),
            ["src/lib.rs:2: impl Server"]
        );
    }

    #[test]
    fn a_type_of_the_same_name_in_another_layer_is_told_apart() {
        let both = "use crate::state::Memory as Shared; struct Memory; impl Memory {}";
        assert_eq!(found("lobby/chat.rs", both), Vec::<String>::new());
        let other = "use crate::state::Memory; mod b { struct Memory; }\nimpl Memory {}";
        assert_eq!(
            found("lobby/chat.rs", other),
            ["src/lobby/chat.rs:2: impl Memory"]
        );
    }

    #[test]
    fn the_list_names_all_modules_and_no_others() {
        assert_eq!(found("extra.rs", ""), ["src/extra.rs:0: extra"]);
        assert_eq!(LAYERS.check(&[("lib.rs".to_owned(), ROOT.to_owned())]).len(), 5);
    }
}
