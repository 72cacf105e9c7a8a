//! The modules of one crate, as they are written, and what a name in them means.

use std::{fs, path::Path, rc::Rc};

use anyhow::{Context as _, Result};
use syn::{Attribute, Ident, Item, ItemImpl, UseTree, Visibility};

/// All modules of a crate that were asked for.
pub(super) struct Crate {
    /// The first is the root.
    pub(super) modules: Vec<Module>,
    is_left_out: fn(&[Attribute]) -> bool,
}

/// One module, in a file of its own or not.
pub(super) struct Module {
    /// The names that lead to it from the root.
    pub(super) path: Vec<String>,
    /// The file that it is in.
    pub(super) text: Rc<str>,
    pub(super) items: Vec<Item>,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    Module(usize),
    /// An item, by its module and its place there.
    Item(usize, usize),
    /// Something of another crate, by its path.
    Elsewhere(String),
}

/// One name that a `use` brings in, and its path; `None` for a glob.
pub(super) type Leaf = (Vec<String>, Option<String>);

impl Crate {
    /// Reads the library of `crates/NAME`, without the items whose attributes `is_left_out` says it of.
    pub(super) fn load(root: &Path, name: &str, is_left_out: fn(&[Attribute]) -> bool) -> Result<Self> {
        let mut krate = Self { modules: Vec::new(), is_left_out };
        let src = root.join("crates").join(name).join("src");
        krate.load_file(Vec::new(), &src.join("lib.rs"), &src)?;
        Ok(krate)
    }

    fn load_file(&mut self, path: Vec<String>, file: &Path, dir: &Path) -> Result<()> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let parsed = syn::parse_file(&text).with_context(|| format!("cannot parse {}", file.display()))?;
        self.load_module(Module { path, text: text.into(), items: parsed.items }, dir)
    }

    fn load_module(&mut self, mut module: Module, dir: &Path) -> Result<()> {
        module.items.retain(|item| !(self.is_left_out)(attributes(item)));
        let (path, text, items) = (module.path.clone(), Rc::clone(&module.text), module.items.clone());
        self.modules.push(module);
        for item in items {
            let Item::Mod(item) = item else { continue };
            let name = item.ident.to_string();
            let dir = dir.join(&name);
            let path = [&path[..], &[name]].concat();
            match item.content {
                Some((_, items)) => self.load_module(Module { path, text: Rc::clone(&text), items }, &dir)?,
                None => self.load_file(path, &dir.with_extension("rs"), &dir)?,
            }
        }
        Ok(())
    }

    /// What a path means, seen from a module.
    pub(super) fn meanings_of(&self, module: usize, path: &[String]) -> Vec<Meaning> {
        self.look_up(module, path, MAX_IMPORTS)
    }

    fn look_up(&self, module: usize, path: &[String], imports: usize) -> Vec<Meaning> {
        let Some((first, rest)) = path.split_first() else { return vec![Meaning::Module(module)] };
        let start = match first.as_str() {
            "crate" => Some(0),
            "self" => Some(module),
            "super" => self.modules[module].path.split_last().and_then(|(_, parent)| self.module_at(parent)),
            name => {
                let found = self.named(module, name, imports);
                if rest.is_empty() {
                    return found;
                }
                found.into_iter().find_map(|meaning| match meaning {
                    Meaning::Module(found) => Some(found),
                    Meaning::Item(..) | Meaning::Elsewhere(_) => None,
                })
            }
        };
        match start {
            Some(start) => self.look_up(start, rest, imports),
            None => vec![Meaning::Elsewhere(path.join("::"))],
        }
    }

    /// What a name means in a module, by way of this number of imports at most.
    fn named(&self, module: usize, name: &str, imports: usize) -> Vec<Meaning> {
        let here = &self.modules[module];
        let child = self.module_at(&[&here.path[..], &[name.to_owned()]].concat());
        let mut found: Vec<_> = child.map(Meaning::Module).into_iter().collect();
        for (i, item) in here.items.iter().enumerate() {
            let Item::Use(item) = item else {
                let is_it = declared(item).is_some_and(|(_, declared)| declared == name);
                found.extend(is_it.then_some(Meaning::Item(module, i)));
                continue;
            };
            for (path, brought) in leaves(&item.tree) {
                let Some(imports) = imports.checked_sub(1) else { continue };
                match brought {
                    Some(brought) if brought == name => found.extend(self.look_up(module, &path, imports)),
                    Some(_) => {}
                    None => {
                        found.extend(self.look_up(module, &path, imports).into_iter().flat_map(
                            |of| match of {
                                Meaning::Module(of) => self.named(of, name, imports),
                                Meaning::Item(..) | Meaning::Elsewhere(_) => Vec::new(),
                            },
                        ))
                    }
                }
            }
        }
        found.dedup();
        found
    }

    fn module_at(&self, path: &[String]) -> Option<usize> {
        self.modules.iter().position(|module| module.path == path)
    }

    /// The `impl` that a macro without arguments stands for, with its text.
    pub(super) fn expand(&self, name: &str) -> Option<(ItemImpl, Rc<str>)> {
        let all = self.modules.iter().flat_map(|module| module.items.iter().map(move |item| (module, item)));
        let (module, item) = all.into_iter().find_map(|(module, item)| match item {
            Item::Macro(item) if item.ident.as_ref().is_some_and(|ident| ident == name) => {
                Some((module, item))
            }
            _ => None,
        })?;
        let text = &module.text[item.mac.delimiter.span().join().byte_range()];
        let body = text.split_once("=>")?.1;
        let body = body[body.find('{')? + 1..body.rfind("};")?].replace("$crate", "crate");
        let text = format!("impl Expanded {{{body}}}");
        Some((syn::parse_str(&text).ok()?, text.into()))
    }
}

/// Whether an item is `#[doc(hidden)]`.
pub(super) fn is_hidden(attributes: &[Attribute]) -> bool {
    let hides = |attribute: &Attribute| attribute.parse_args::<Ident>().is_ok_and(|word| word == "hidden");
    attributes.iter().any(|attribute| attribute.path().is_ident("doc") && hides(attribute))
}

/// Whether it is built only for tests or with a feature.
pub(super) fn is_conditional(attributes: &[Attribute]) -> bool {
    has_condition(attributes, &["test", "feature"])
}

/// Whether it is built only for tests.
pub(super) fn is_test(attributes: &[Attribute]) -> bool {
    has_condition(attributes, &["test"])
}

fn has_condition(attributes: &[Attribute], words: &[&str]) -> bool {
    let conditions = attributes.iter().filter(|attribute| attribute.path().is_ident("cfg"));
    conditions.filter_map(|attribute| attribute.meta.require_list().ok()).any(|list| {
        let condition = list.tokens.to_string().replace(' ', "");
        let is_on = |word: &&str| condition.starts_with(*word) || condition.contains(&format!("({word}"));
        !condition.starts_with("not(") && words.iter().any(is_on)
    })
}

pub(super) fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// What an item declares that is no module, and who may name it. A macro that is used as an item defines, by its name,
/// something public: `fault_codes!` a `FaultCode`.
pub(super) fn declared(item: &Item) -> Option<(&Visibility, String)> {
    let (vis, ident) = match item {
        Item::Const(item) => (&item.vis, &item.ident),
        Item::Enum(item) => (&item.vis, &item.ident),
        Item::Fn(item) => (&item.vis, &item.sig.ident),
        Item::Macro(item) => {
            let words = item.mac.path.get_ident()?.to_string();
            let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
            let made: String = words.trim_end_matches('s').split('_').map(capital).collect();
            return item.ident.is_none().then_some((&Visibility::Inherited, made));
        }
        Item::Static(item) => (&item.vis, &item.ident),
        Item::Struct(item) => (&item.vis, &item.ident),
        Item::Trait(item) => (&item.vis, &item.ident),
        Item::Type(item) => (&item.vis, &item.ident),
        _ => return None,
    };
    Some((vis, ident.to_string()))
}

/// All names that a `use` brings in.
pub(super) fn leaves(tree: &UseTree) -> Vec<Leaf> {
    let leaf = |path: &Ident, name: &Ident| (vec![path.to_string()], Some(name.to_string()));
    match tree {
        UseTree::Path(path) => {
            let name = path.ident.to_string();
            let below = leaves(&path.tree).into_iter().map(|(path, brought)| match brought.as_deref() {
                Some("self") => (vec![name.clone()], Some(name.clone())),
                _ => ([std::slice::from_ref(&name), &path].concat(), brought),
            });
            below.collect()
        }
        UseTree::Name(name) => vec![leaf(&name.ident, &name.ident)],
        UseTree::Rename(rename) => vec![leaf(&rename.ident, &rename.rename)],
        UseTree::Glob(_) => vec![(Vec::new(), None)],
        UseTree::Group(group) => group.items.iter().flat_map(leaves).collect(),
    }
}

/// More than any name takes; a circle of imports brings nothing in.
const MAX_IMPORTS: usize = 8;
