"""A catalogue of any size that is always the same: for plans and times of searches."""

from __future__ import annotations

from typing import Final

import asyncpg

_KINDS: Final = (
    "Cafetera,Camiseta,Zapatilla,Lámpara,Mochila,Cuchillo,Sartén,Tornillo,Taladro,Silla,Mesa,Cojín,Manta,Botella,"
    "Teclado,Ratón,Auricular,Altavoz,Cámara,Trípode,Kettle,Shirt,Jacket,Trousers,Backpack,Knife,Wrench,Hammer,Drill,"
    "Desk,Chair,Pillow,Blanket,Bottle,Keyboard,Headphones,Speaker,Monitor,Charger,Notebook"
)
_QUALITIES: Final = (
    "italiana,eléctrica,plegable,impermeable,ligera,ergonómica,inalámbrica,reciclada,compacta,profesional,infantil,"
    "vintage,wireless,foldable,waterproof,lightweight,ergonomic,organic,stainless,rechargeable,portable,classic"
)
_MATERIALS: Final = (
    "de acero inoxidable,de algodón,de madera de roble,de aluminio,de cerámica,de cuero,de plástico,of steel,of cotton,"
    "of oak,of leather,of glass,of bamboo"
)
_TEXT: Final = (
    "Pensada para el uso diario en casa y en la oficina. Se limpia con facilidad y viene con dos años de garantía. "
    "Made for daily use; cleans easily and comes with a warranty of two years. Envío gratuito en península. "
)


async def fill(db: asyncpg.Connection, products: int) -> None:
    """Add so many products, a tenth of them inactive, and tell the planner of them."""
    await db.execute(
        f"""
        INSERT INTO products (id, name, slug, sku, sku_key, ean, description, price, currency, stock, category,
            attributes, is_active, version, created_at, updated_at)
        SELECT md5('product' || n)::uuid,
               k[1 + n % cardinality(k)] || ' ' || q[1 + n / 7 % cardinality(q)] || ' '
                   || m[1 + n / 31 % cardinality(m)] || ' ' || chr(65 + n % 26) || n,
               'catalogue-' || n, 'CAT-' || lpad(n::text, 7, '0'), 'cat-' || lpad(n::text, 7, '0'), NULL,
               k[1 + n * 13 % cardinality(k)] || '. ' || $2 || q[1 + n * 11 % cardinality(q)],
               (n % 5000) / 20.0, CASE WHEN n % 10 = 0 THEN 'USD' ELSE 'EUR' END, n % 12, k[1 + n % cardinality(k)],
               jsonb_build_object('color', (ARRAY['red', 'green', 'blue'])[1 + n % 3], 'size', n % 50),
               n % 10 <> 3, 1, now(), now() - n * interval '1 second'
        FROM generate_series(1, $1::int) AS n,
             (SELECT string_to_array('{_KINDS}', ',') AS k, string_to_array('{_QUALITIES}', ',') AS q,
                     string_to_array('{_MATERIALS}', ',') AS m) AS words
        """,
        products,
        _TEXT,
        timeout=300,
    )
    # The lists of pending entries of the GIN indexes go into the indexes as well.
    await db.execute("VACUUM ANALYZE products", timeout=300)
