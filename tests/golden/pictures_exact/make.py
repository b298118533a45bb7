"""Makes the pictures of this folder and the digests of what Pillow 13.0 decodes them to (needs numpy, pillow)."""
import numpy as np, hashlib, os
from PIL import Image
rng=np.random.default_rng(4); out = os.path.dirname(os.path.abspath(__file__)); lines = []
def scene(w,h):
    y,x=np.mgrid[0:h,0:w]; a=np.stack([127+90*np.sin(x/(3+2*c)+c)*np.cos(y/(4+c)) for c in range(3)],-1)+rng.normal(0,12,(h,w,3))
    return Image.fromarray(np.clip(a,0,255).astype(np.uint8))
S=[('s420.jpg',dict(subsampling=2)),('s422.jpg',dict(subsampling=1)),('s444.jpg',dict(subsampling=0)),
 ('restart.jpg',dict(restart_marker_blocks=2,subsampling=2)),('progressive_420.jpg',dict(progressive=True,subsampling=2)),('progressive_422_restart.jpg',dict(progressive=True,subsampling=1,restart_marker_rows=1)),
 ('rgb.jpg',dict(keep_rgb=True)),('coarse.jpg',dict(quality=3)),('narrow.jpg',dict(subsampling=2))]
for n,kw in S:
    kw.setdefault('quality',60); im=scene(3,21) if n=='narrow.jpg' else scene(37,27)
    im.save(f'{out}/{n}',**kw)
scene(37,27).convert('CMYK').save(f'{out}/cmyk_progressive.jpg',quality=60,progressive=True)
scene(37,27).save(f'{out}/lossy.webp',quality=60)

import io, struct
def patched(name,w,h,sub,code,w2,h2,**kw):
    b=io.BytesIO(); scene(w,h).save(b,'JPEG',quality=70,subsampling=sub,**kw); b=bytearray(b.getvalue())
    at=b.find(b'\xff\xc2' if kw.get('progressive') else b'\xff\xc0'); b[at+5:at+9]=struct.pack('>HH',h2,w2); b[at+11]=code
    open(f'{out}/{name}','wb').write(b)
# as many blocks a unit, laid out otherwise: sampling factors no writer here offers
patched('s440.jpg',30,21,1,0x12,21,30); patched('s411.jpg',30,47,2,0x41,60,23); patched('s114.jpg',30,47,2,0x14,15,93); patched('s440_progressive.jpg',32,24,1,0x12,24,32,progressive=True)
b=io.BytesIO(); scene(21,18).convert('CMYK').save(b,'JPEG',quality=70); b=bytearray(b.getvalue()); at=b.find(b'Adobe'); assert b[at+11]==0; b[at+11]=2; open(out+'/ycck.jpg','wb').write(b)
for m,n in (('1','bit.bmp'),('L','grey.bmp')): scene(19,7).convert(m).save(f'{out}/{n}')
scene(19,7).quantize(13).save(f'{out}/palette.bmp'); scene(19,7).quantize(3).save(f'{out}/two_bits.png',bits=2)
for n in sorted(os.listdir(out)):
    if n in ('SHA256SUMS', 'make.py'): continue
    lines.append(hashlib.sha256(Image.open(f'{out}/{n}').convert('RGB').tobytes()).hexdigest()+'  '+n)
open(out+'/SHA256SUMS','w').write('\n'.join(lines)+'\n')
