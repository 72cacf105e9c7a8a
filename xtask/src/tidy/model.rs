//! The modules of one crate, as they are written, and what a name in them means.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{
    Attribute, Item, ItemUse, UseTree, Visibility,
    parse::{ParseStream, Parser as _},
};

use super::layers::TOP;

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
    pub(super) items: Vec<(Head, Item)>,
    /// What its `use`s bring in, and whether for itself alone.
    pub(super) uses: Vec<(bool, Leaf)>,
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
        let root = src.join(if name == TOP { "main.rs" } else { "lib.rs" });
        krate.load_file(Vec::new(), &root, &src)?;
        Ok(krate)
    }

    fn load_file(&mut self, path: Vec<String>, file: &Path, dir: &Path) -> Result<()> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let parsed = syn::parse_file(&text).with_context(|| format!("cannot parse {}", file.display()))?;
        self.load_module(path, parsed.items, dir)
    }

    fn load_module(&mut self, path: Vec<String>, items: Vec<Item>, dir: &Path) -> Result<()> {
        let mut items: Vec<_> = items.into_iter().map(|item| (Head::of(&item), item)).collect();
        items.retain(|(head, _)| !(self.is_left_out)(&head.attributes));
        let uses = items.iter().filter_map(|(_, of)| if let Item::Use(of) = of { Some(of) } else { None });
        let own = |item: &ItemUse| matches!(item.vis, Visibility::Inherited);
        let uses = uses.flat_map(|item| leaves(&item.tree).into_iter().map(move |leaf| (own(item), leaf)));
        self.modules.push(Module { path: path.clone(), uses: uses.collect(), items: items.clone() });
        for item in items {
            let (_, Item::Mod(item)) = item else { continue };
            let name = item.ident.to_string();
            let dir = dir.join(&name);
            let path = [&path[..], &[name]].concat();
            match item.content {
                Some((_, items)) => self.load_module(path, items, &dir)?,
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
        let items = here.items.iter().enumerate().filter(|(_, (head, _))| head.name.as_deref() == Some(name));
        found.extend(items.map(|(i, _)| Meaning::Item(module, i)));
        let Some(imports) = imports.checked_sub(1) else { return found };
        for (_, (path, brought)) in &here.uses {
            match brought {
                Some(brought) if brought == name => found.extend(self.look_up(module, path, imports)),
                Some(_) => {}
                None => {
                    found.extend(self.look_up(module, path, imports).into_iter().flat_map(|of| match of {
                        Meaning::Module(of) => self.named(of, name, imports),
                        Meaning::Item(..) | Meaning::Elsewhere(_) => Vec::new(),
                    }))
                }
            }
        }
        found.dedup();
        found
    }

    fn module_at(&self, path: &[String]) -> Option<usize> {
        self.modules.iter().position(|module| module.path == path)
    }

    /// All items, each with the module that it is in.
    pub(super) fn items(&self) -> impl Iterator<Item = (usize, &(Head, Item))> {
        let modules = self.modules.iter().enumerate();
        modules.flat_map(|(at, module)| module.items.iter().map(move |item| (at, item)))
    }
}

/// How an item begins, or a part of one.
#[derive(Clone)]
pub(super) struct Head {
    pub(super) attributes: Vec<Attribute>,
    pub(super) is_public: bool,
    /// What it declares, unless that is a module. A macro that is used as an item defines something by its name:
    /// `fault_codes!` a `FaultCode`.
    pub(super) name: Option<String>,
}

impl Head {
    pub(super) fn of(part: &impl ToTokens) -> Self {
        let parse = |input: ParseStream<'_>| {
            let attributes = input.call(Attribute::parse_outer)?;
            let is_public = matches!(input.parse()?, Visibility::Public(_));
            let words: Vec<_> = input.parse::<TokenStream>()?.into_iter().collect();
            let name = words.windows(2).find_map(declared).or_else(|| made(&words));
            Ok(Self { attributes, is_public, name })
        };
        let nothing = Self { attributes: Vec::new(), is_public: false, name: None };
        parse.parse2(part.to_token_stream()).unwrap_or(nothing)
    }

    /// Whether it is `#[doc(hidden)]`.
    pub(super) fn is_hidden(&self) -> bool {
        let mut docs = self.attributes.iter().filter(|attribute| attribute.path().is_ident("doc"));
        docs.any(|attribute| attribute.parse_args::<Ident>().is_ok_and(|word| word == "hidden"))
    }
}

fn declared(pair: &[TokenTree]) -> Option<String> {
    let [TokenTree::Ident(keyword), TokenTree::Ident(name)] = pair else { return None };
    let is_keyword = |word: &Ident| ITEMS.iter().any(|item| word == item);
    (is_keyword(keyword) && !is_keyword(name)).then(|| name.to_string())
}

fn made(words: &[TokenTree]) -> Option<String> {
    let [TokenTree::Ident(called), TokenTree::Punct(_), TokenTree::Group(_), ..] = words else { return None };
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    Some(called.to_string().trim_end_matches('s').split('_').map(capital).collect())
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

/// Words before the name of an item.
const ITEMS: [&str; 7] = ["const", "enum", "fn", "static", "struct", "trait", "type"];

/// More than any name takes; a circle of imports brings nothing in.
const MAX_IMPORTS: usize = 8;
