//! Data that runs find, and what they say of them.

use std::fs;

use rcnn_core::weights::Weights;
use rcnn_train::{Run, TrainConfig, TrainError};
use tempfile::TempDir;

use super::{lines, tiny, train};

/// A folder with a run's description, whose pictures without splits are the first of the training set.
fn few(pictures: usize) -> (TempDir, TrainConfig) {
    let (folder, mut config) = tiny(1);
    let few = folder.path().join("few");
    for part in ["images", "labels"] {
        fs::create_dir_all(few.join(part)).unwrap();
    }
    for i in 0..pictures {
        for file in [format!("images/{i}.png"), format!("labels/{i}.txt")] {
            let from = config.data.join(file.replace('/', "/train/"));
            fs::copy(from, few.join(file)).unwrap();
        }
    }
    fs::write(few.join("classes.txt"), "red\ngreen\n").unwrap();
    config.data = few;
    (folder, config)
}

/// A tenth of four is none: there was nothing to validate on, and a batch of four was too much for three.
#[test]
fn a_few_pictures_are_trained_and_validated_on() {
    for pictures in [1, 2, 3, 4, 5, 8] {
        let (folder, mut config) = few(pictures);
        config.batch_size = 4;
        let run = Run::create(folder.path().join("run"), config.clone()).unwrap();
        train(&run).unwrap();
        let steps = lines(run.folder())
            .iter()
            .filter(|line| line["split"] == "train")
            .count();
        assert_eq!(steps, 1, "{pictures}");

        config.train_split = Some("all".into());
        config.valid_split = Some("all".into());
        let run = Run::create(folder.path().join("all"), config).unwrap();
        train(&run).unwrap();
    }
}

/// The parameters never moved.
#[test]
fn accumulation_over_more_steps_than_an_epoch_has_is_an_error() {
    let (folder, mut config) = tiny(1);
    config.accumulation = 5;
    let run = Run::create(folder.path().join("run"), config).unwrap();
    let error = train(&run).unwrap_err().to_string();
    assert!(
        error.contains("accumulation = 5: an epoch has 4 steps"),
        "{error}"
    );
}

/// The detector learned that everything is background.
#[test]
fn training_without_any_box_is_an_error_that_names_the_label_files() {
    let (folder, config) = tiny(1);
    fs::remove_dir_all(config.data.join("labels/train")).unwrap();
    let run = Run::create(folder.path().join("run"), config).unwrap();
    let error = train(&run).unwrap_err();
    assert!(
        matches!(error, TrainError::NoObjects { images: 8, .. }),
        "{error}"
    );
    let text = error.to_string();
    assert!(
        text.contains("none of the 8 images to train on has a box"),
        "{text}"
    );
    assert!(
        text.contains("images without labels, taken for background (8)"),
        "{text}"
    );
    assert!(
        text.contains("no label file") && text.contains("labels/train/0.txt"),
        "{text}"
    );
}

/// Left out, the object was taught as background.
#[test]
fn boxes_that_reach_beyond_their_image_can_be_cut() {
    let (folder, mut config) = tiny(1);
    fs::write(
        config.data.join("labels/train/0.txt"),
        "0 0.2 0.5 0.5 0.4\n",
    )
    .unwrap();
    let text = toml::to_string(&config).unwrap();
    assert!(!text.contains("clip ="), "{text}");
    let run = Run::create(folder.path().join("run"), config.clone()).unwrap();
    let error = train(&run).unwrap_err().to_string();
    assert!(error.contains("boxes outside the image (1)"), "{error}");
    config.clip = true;
    let run = Run::create(folder.path().join("clip"), config).unwrap();
    train(&run).unwrap();
    let again = fs::read_to_string(run.folder().join("run.toml")).unwrap();
    assert!(again.contains("clip = true"), "{again}");
}

/// The model got the names in the given order, and labels in the data's: each class another's name.
#[test]
fn labels_follow_the_order_of_class_names_in_the_configuration() {
    let (_folder, mut config) = tiny(1);
    let labels = |config: &TrainConfig| {
        let data = config.training_data(&Default::default())?;
        let labels = data.samples.iter().map(|s| s.instances.labels.clone());
        Ok::<_, TrainError>(labels.collect::<Vec<_>>())
    };
    let named = |config: &mut TrainConfig, names: [&str; 2]| {
        let names = ["__background__", names[0], names[1]];
        config.model.insert("class_names".into(), names.into());
    };
    let plain = labels(&config).unwrap();
    named(&mut config, ["green", "red"]);
    for (one, other) in labels(&config).unwrap().iter().zip(&plain) {
        let swapped: Vec<_> = other.iter().map(|label| 3 - label).collect();
        assert_eq!(*one, swapped);
    }
    named(&mut config, ["green", "blue"]);
    let error = labels(&config).unwrap_err().to_string();
    assert!(error.contains("[__background__, green, blue]"), "{error}");
    assert!(error.contains("[__background__, red, green]"), "{error}");
}

/// The data's names were given to whatever the weights knew.
#[test]
fn weights_without_names_can_be_given_some() {
    let (folder, mut config) = tiny(2);
    let first = folder.path().join("first");
    train(&Run::create(&first, config.clone()).unwrap()).unwrap();
    let mut weights = Weights::open(first.join("last.bpk")).unwrap();
    weights.config.class_names = Vec::new();
    let nameless = folder.path().join("nameless.bpk");
    weights
        .write_burnpack(&nameless, Default::default())
        .unwrap();

    config.epochs = 1;
    config.model = Default::default();
    config.weights = Some(nameless);
    let labels = folder.path().join("labels.txt");
    config.labels = Some(labels.clone());
    config.optimizer.learning_rate = 1e-9;
    let names = |text: &str, out: &str| {
        fs::write(&labels, text).unwrap();
        let run = Run::create(folder.path().join(out), config.clone()).unwrap();
        train(&run).map(|_| Weights::open(run.folder().join("last.bpk")).unwrap())
    };
    // The labels of the data are numbered as the weights' classes.
    let other = names("green\nred\n", "swapped").unwrap();
    assert_eq!(other.config.class_names[1..], ["green", "red"]);
    for (text, says) in [
        ("red\ngreen\nblue\n", "3 names, but the model has 2 classes"),
        ("red\nred\n", "lines 1 and 2 are both `red`"),
    ] {
        let error = names(text, "wrong").unwrap_err().to_string();
        assert!(
            error.contains(says) && error.contains("labels.txt"),
            "{error}"
        );
    }
    config.weights = None;
    let error = Run::create(folder.path().join("none"), config)
        .unwrap_err()
        .to_string();
    assert!(error.contains("labels"), "{error}");
}
