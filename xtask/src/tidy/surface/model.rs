//! The modules of one crate, as they are written, and what a name in them means.

use std::{
    fs,
    path::{Path, PathBuf},
    rc::Rc,
};

use anyhow::{Context as _, Result, bail};
use syn::{Attribute, Ident, Item, ItemImpl, ItemMacro, ItemUse, UseTree};

/// All of a crate that is built without a feature and is no test.
pub(super) struct Crate {
    /// The first is the root.
    pub(super) modules: Vec<Module>,
}

/// One module, in a file of its own or not.
pub(super) struct Module {
    name: String,
    parent: Option<usize>,
    /// The file that it is in.
    pub(super) text: Rc<str>,
    pub(super) items: Vec<Item>,
    children: Vec<usize>,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    Module(usize),
    /// An item, by its module and its place there.
    Item(usize, usize),
    /// Something that a macro makes: the macro's place, and the name.
    Made(usize, usize, String),
    /// Something of another crate, by its path.
    Elsewhere(String),
}

/// One name that a `use` brings in.
struct Leaf {
    path: Vec<String>,
    /// `None` for a glob.
    name: Option<String>,
}

impl Crate {
    /// Reads the library of `crates/NAME`.
    pub(super) fn load(root: &Path, name: &str) -> Result<Self> {
        let mut krate = Self { modules: Vec::new() };
        let src = root.join("crates").join(name).join("src");
        krate.load_file(&src.join("lib.rs"), &src, String::new(), None)?;
        Ok(krate)
    }

    /// What `name` means in a module.
    pub(super) fn meanings(&self, module: usize, name: &str) -> Vec<Meaning> {
        self.meanings_within(module, name, MAX_HOPS)
    }

    /// What a path means, seen from a module.
    pub(super) fn meanings_of(&self, module: usize, path: &[String]) -> Vec<Meaning> {
        self.meanings_of_within(module, path, MAX_HOPS)
    }

    /// What a `use` brings in, by name: that of its last part for a glob too, which must mean a module.
    pub(super) fn brought_in(&self, module: usize, item: &ItemUse) -> Vec<(Option<String>, Vec<Meaning>)> {
        leaves(&item.tree).into_iter().map(|leaf| (leaf.name, self.meanings_of(module, &leaf.path))).collect()
    }

    /// The `impl` that a macro without arguments stands for, with its text.
    pub(super) fn expand(&self, name: &str) -> Option<(ItemImpl, Rc<str>)> {
        let found =
            self.modules.iter().flat_map(|module| module.items.iter().map(move |item| (module, item)));
        let mut found = found.filter_map(|(module, item)| match item {
            Item::Macro(item) if item.ident.as_ref().is_some_and(|ident| ident == name) => {
                Some((module, item))
            }
            _ => None,
        });
        let (module, item) = found.next()?;
        let text = &module.text[item.mac.delimiter.span().join().byte_range()];
        let body = text.split_once("=>")?.1;
        let body = body[body.find('{')? + 1..body.rfind("};")?].replace("$crate", "crate");
        let text = format!("impl Expanded {{{body}}}");
        Some((syn::parse_str(&text).ok()?, text.into()))
    }

    fn load_file(&mut self, path: &Path, dir: &Path, name: String, parent: Option<usize>) -> Result<usize> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let file = syn::parse_file(&text).with_context(|| format!("cannot parse {}", path.display()))?;
        self.load_items(file.items, text.into(), dir, name, parent)
    }

    fn load_items(
        &mut self,
        items: Vec<Item>,
        text: Rc<str>,
        dir: &Path,
        name: String,
        parent: Option<usize>,
    ) -> Result<usize> {
        let items: Vec<Item> = items.into_iter().filter(|item| !is_conditional(attributes(item))).collect();
        let inner: Vec<_> = items.iter().filter_map(as_module).cloned().collect();
        let at = self.modules.len();
        self.modules.push(Module { name, parent, text: Rc::clone(&text), items, children: Vec::new() });
        for module in inner {
            let (name, dir) = (module.ident.to_string(), dir.join(module.ident.to_string()));
            let child = match module.content {
                Some((_, items)) => self.load_items(items, Rc::clone(&text), &dir, name, Some(at))?,
                None => self.load_file(&module_file(&dir)?, &dir, name, Some(at))?,
            };
            self.modules[at].children.push(child);
        }
        Ok(at)
    }

    fn meanings_within(&self, module: usize, name: &str, hops: usize) -> Vec<Meaning> {
        let Some(hops) = hops.checked_sub(1) else { return Vec::new() };
        let here = &self.modules[module];
        let mut found: Vec<Meaning> = (here.children.iter())
            .filter(|child| self.modules[**child].name == name)
            .map(|child| Meaning::Module(*child))
            .collect();
        for (i, item) in here.items.iter().enumerate() {
            match item {
                Item::Mod(_) | Item::Impl(_) => {}
                Item::Macro(made) if made.ident.is_none() => {
                    found.extend(makes(made, name).then(|| Meaning::Made(module, i, name.to_owned())));
                }
                Item::Use(brings) => {
                    for leaf in leaves(&brings.tree) {
                        let path = match leaf.name {
                            Some(leaf_name) if leaf_name == name => leaf.path,
                            Some(_) => continue,
                            None => [leaf.path, vec![name.to_owned()]].concat(),
                        };
                        found.extend(self.meanings_of_within(module, &path, hops));
                    }
                }
                item => {
                    found.extend(
                        ident(item).is_some_and(|ident| ident == name).then_some(Meaning::Item(module, i)),
                    );
                }
            }
        }
        found.dedup();
        found
    }

    fn meanings_of_within(&self, module: usize, path: &[String], hops: usize) -> Vec<Meaning> {
        let Some((first, rest)) = path.split_first() else { return vec![Meaning::Module(module)] };
        let start = match first.as_str() {
            "crate" => Some(0),
            "self" => Some(module),
            "super" => self.modules[module].parent,
            _ if rest.is_empty() => return self.meanings_within(module, first, hops),
            name => self.meanings_within(module, name, hops).into_iter().find_map(|meaning| match meaning {
                Meaning::Module(found) => Some(found),
                Meaning::Item(..) | Meaning::Made(..) | Meaning::Elsewhere(_) => None,
            }),
        };
        match start {
            Some(start) if rest.is_empty() => vec![Meaning::Module(start)],
            Some(start) => self.meanings_of_within(start, rest, hops),
            None => vec![Meaning::Elsewhere(path.join("::"))],
        }
    }
}

/// Whether an item is `#[doc(hidden)]`.
pub(super) fn is_hidden(attributes: &[Attribute]) -> bool {
    let hides = |attribute: &&Attribute| {
        attribute.path().is_ident("doc") && attribute.parse_args::<Ident>().is_ok_and(|word| word == "hidden")
    };
    attributes.iter().any(|attribute| hides(&attribute))
}

/// Whether it is built only for tests or with a feature.
pub(super) fn is_conditional(attributes: &[Attribute]) -> bool {
    attributes.iter().filter(|attribute| attribute.path().is_ident("cfg")).any(|attribute| {
        let syn::Meta::List(list) = &attribute.meta else { return false };
        let condition = list.tokens.to_string();
        let condition = condition.replace(' ', "");
        ["test", "feature"]
            .iter()
            .any(|word| condition.starts_with(word) || condition.contains(&format!("({word}")))
            && !condition.starts_with("not(")
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

fn ident(item: &Item) -> Option<&Ident> {
    match item {
        Item::Const(item) => Some(&item.ident),
        Item::Enum(item) => Some(&item.ident),
        Item::Fn(item) => Some(&item.sig.ident),
        Item::Static(item) => Some(&item.ident),
        Item::Struct(item) => Some(&item.ident),
        Item::Trait(item) => Some(&item.ident),
        Item::Type(item) => Some(&item.ident),
        _ => None,
    }
}

fn as_module(item: &Item) -> Option<&syn::ItemMod> {
    match item {
        Item::Mod(module) => Some(module),
        _ => None,
    }
}

/// Whether a macro that is used as an item seems to define `name`.
fn makes(item: &ItemMacro, name: &str) -> bool {
    item.mac.path.get_ident().is_some_and(|ident| {
        let words: String = ident.to_string().split('_').map(capitalised).collect();
        words == format!("{name}s") || words == name
    })
}

fn capitalised(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn leaves(tree: &UseTree) -> Vec<Leaf> {
    let below = |name: String, tree: &UseTree| -> Vec<Leaf> {
        let mut below = leaves(tree);
        for leaf in &mut below {
            if leaf.name.as_deref() == Some("self") {
                *leaf = Leaf { path: Vec::new(), name: Some(name.clone()) };
            }
            leaf.path.insert(0, name.clone());
        }
        below
    };
    match tree {
        UseTree::Path(path) => below(path.ident.to_string(), &path.tree),
        UseTree::Name(name) => {
            vec![Leaf { path: vec![name.ident.to_string()], name: Some(name.ident.to_string()) }]
        }
        UseTree::Rename(rename) => {
            vec![Leaf { path: vec![rename.ident.to_string()], name: Some(rename.rename.to_string()) }]
        }
        UseTree::Glob(_) => vec![Leaf { path: Vec::new(), name: None }],
        UseTree::Group(group) => group.items.iter().flat_map(leaves).collect(),
    }
}

fn module_file(dir: &Path) -> Result<PathBuf> {
    let candidates = [dir.with_extension("rs"), dir.join("mod.rs")];
    match candidates.iter().find(|candidate| candidate.is_file()) {
        Some(found) => Ok(found.clone()),
        None => bail!("there is no file for the module {}", dir.display()),
    }
}

/// 16: no name is re-exported through more modules; a circle ends there.
const MAX_HOPS: usize = 16;
