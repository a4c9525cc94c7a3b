# Sourced: names the folders of CUDA's libraries that Python packages brought.
libraries=$(python3 -c 'import glob, os, site
print(":".join(sorted({os.path.dirname(p) for s in site.getsitepackages() for p in glob.glob(s + "/nvidia/*/lib/*.so.*")})))')
export LD_LIBRARY_PATH="$libraries:${LD_LIBRARY_PATH:-}"
