# The page, without torch. Not built where this was written (no Docker there); tests/test_run.py runs
# what its commands run.
#   python -m backends export --checkpoint_path checkpoints/open.pth --out exported/open.xml
#   docker build -t wav2lip . && docker run -p 7860:7860 wav2lip
FROM python:3.12-slim
WORKDIR /app
COPY requirements-run.txt .
RUN pip install --no-cache-dir --no-deps -r requirements-run.txt \
    && pip install --no-cache-dir "gradio>=6.31,<7"
COPY . .
RUN useradd --create-home user && mkdir -p data && chown user data
USER user
EXPOSE 7860
ENTRYPOINT ["python"]
CMD ["app.py", "--host", "0.0.0.0", "--checkpoint_path", "exported/open.xml"]
