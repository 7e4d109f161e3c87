"""A stereo teacher teaches a monocular depth student: data, models, distillation, training, evaluation."""
