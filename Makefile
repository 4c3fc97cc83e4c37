# make demo   a real face with the weights that ship, then the whole job on a synthetic corpus, small
#             models, no downloads: results/demo/
# make test   the tests
# make lint   ruff, and who imports whom
# Each makes .venv first, and installs what it needs, again only when a requirements file has changed.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.installed
TESTABLE := $(VENV)/.installed-test

# The demo's folders; override to keep several, e.g. make demo DEMO=/tmp/demo
DEMO ?= data/demo
OUT ?= results/demo
# So many processes share the test files
WORKERS ?= 2
FLAGS := --data_root $(DEMO)/preprocessed --filelists $(DEMO)/corpus/filelists \
         --log_dir $(DEMO)/runs --config configs/tiny_cpu.yaml

.PHONY: demo test lint clean

$(READY): requirements.txt requirements-landmarks.txt
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-landmarks.txt
	touch $@

$(TESTABLE): $(READY) requirements-app.txt requirements-test.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-test.txt
	touch $@

demo: $(READY)
	$(RUN) inference.py --checkpoint_path checkpoints/grid_s1.pth \
	    --face samples/face.mp4 --audio samples/voice.mp4 --outfile $(OUT)/first_minute.mp4
	$(RUN) -m evaluation.contact_sheet --video $(OUT)/first_minute.mp4 --truth samples/voice.mp4 \
	    --out $(OUT)/first_minute.png
	$(RUN) -m synthetic --out $(DEMO)/corpus --speakers 20 --clips 4 --seconds 3
	$(RUN) preprocess.py --data_root $(DEMO)/corpus/mvlrs_v1 --preprocessed_root $(DEMO)/preprocessed
	$(RUN) color_syncnet_train.py $(FLAGS) --checkpoint_dir $(DEMO)/checkpoints/expert \
	    --hparams nsteps=700
	$(RUN) wav2lip_train.py $(FLAGS) --checkpoint_dir $(DEMO)/checkpoints/wav2lip \
	    --syncnet_checkpoint_path $(DEMO)/checkpoints/expert/checkpoint_step000000700.pth \
	    --hparams nsteps=850 width=0.125 seed=2
	$(RUN) inference.py --checkpoint_path $(DEMO)/checkpoints/wav2lip/checkpoint_step000000850.pth \
	    --face $(DEMO)/corpus/mvlrs_v1/main/s0019/00001.mp4 \
	    --audio $(DEMO)/corpus/mvlrs_v1/main/s0018/00002.mp4 --outfile $(OUT)/result_voice.mp4
	$(RUN) -m evaluation.demo_report --data_root $(DEMO)/corpus \
	    --preprocessed_root $(DEMO)/preprocessed --expert $(DEMO)/checkpoints/expert \
	    --generator $(DEMO)/checkpoints/wav2lip --log_dir $(DEMO)/runs --out $(OUT)

test: $(TESTABLE)
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(WORKERS) --dist loadfile

lint: $(TESTABLE)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(VENV)/bin/lint-imports --no-cache

clean:
	rm -rf $(VENV) data/demo results/demo .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
