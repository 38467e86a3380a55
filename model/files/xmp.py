"""XMP files beside images (`photo.jpg.xmp`), as digiKam, darktable, PhotoPrism and Immich read them.

A caption becomes `dc:description`, which is IPTC Core's Description (IPTC Photo Metadata Standard 2023.1, Description).
"""

from __future__ import annotations

import io
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from model.errors import CaptionerError

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_DC = "http://purl.org/dc/elements/1.1/"
_XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
_NEW = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="{rdf}">
  <rdf:Description rdf:about="" xmlns:dc="{dc}">
   <dc:description>
    <rdf:Alt>
     <rdf:li xml:lang="x-default">{text}</rdf:li>
    </rdf:Alt>
   </dc:description>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
"""


def new_xmp(text: str) -> bytes:
    """Return an XMP document with a description."""
    return _NEW.format(rdf=_RDF, dc=_DC, text=escape(text)).encode()


def with_description(document: bytes, text: str) -> bytes:
    """Return an XMP document with its description replaced and everything else kept. Raises CaptionerError if it is not XMP."""
    try:
        for _, (prefix, uri) in ElementTree.iterparse(io.BytesIO(document), events=["start-ns"]):
            if not prefix.startswith("ns"):  # such names are reserved for namespaces without one
                ElementTree.register_namespace(prefix, uri)
        builder = ElementTree.TreeBuilder(insert_comments=True, insert_pis=True)
        root = ElementTree.fromstring(document, ElementTree.XMLParser(target=builder))
    except (ElementTree.ParseError, ValueError) as error:
        raise CaptionerError("the XMP file beside the image is not XML; remove it, or leave out --overwrite") from error
    blocks = list(root.iter(f"{{{_RDF}}}Description"))
    if not blocks:
        raise CaptionerError("the XMP file beside the image has no rdf:Description; remove it, or leave out --overwrite")
    for block in blocks:
        block.attrib.pop(f"{{{_DC}}}description", None)
        for old in block.findall(f"{{{_DC}}}description"):
            block.remove(old)
    ElementTree.register_namespace("dc", _DC)
    ElementTree.register_namespace("rdf", _RDF)
    entry = ElementTree.SubElement(ElementTree.SubElement(blocks[0], f"{{{_DC}}}description"), f"{{{_RDF}}}Alt")
    item = ElementTree.SubElement(entry, f"{{{_RDF}}}li", {_XML_LANG: "x-default"})
    item.text = text
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
